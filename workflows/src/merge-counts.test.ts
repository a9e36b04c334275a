import type { StratumCount } from '@cpt/contracts/count-strata'
import { expect, test } from 'vitest'
import { mergeCounts } from './merge-counts.ts'

const stratum = (kind: StratumCount['kind'], topic: string | null, n: number): StratumCount => ({ language: 'en', kind, topic, docs: n, tokens: 10 * n, bytes: 40 * n })

test('a stratum that two pools have is one stratum, of what both hold', () => {
  const [law, books, web] = [stratum('web', 'Law', 3), stratum('book', null, 5), stratum('web', null, 2)]
  expect(mergeCounts([law, books], [stratum('book', null, 7), web])).toEqual([law, stratum('book', null, 12), web])
  expect(mergeCounts([law], [])).toEqual([law])
  expect(mergeCounts([], [law])).toEqual([law])
})
