import type { CptRunSpec } from './cpt-run.ts'
import type { Problem } from './parse-input.ts'

/**
 * What a run asks for that a data stage switched off (`corpus.off`) would have made, by path. A preparation is no run: it
 * may leave out any of them. `corpusPath` is where a person finds the stages: in the input, or behind an alias.
 */
export const needsOf = ({ corpus: { off = [] }, plan }: Pick<CptRunSpec, 'corpus' | 'plan'>, isCited = false): Problem[] => {
  const at = off.indexOf('hold-out')
  return [
    ...(at < 0 ? [] : [{
      path: isCited ? 'corpus.newest' : `corpus.off.${at}`,
      expected: 'a corpus with hold-out: a run is measured on the validation sets that it makes (a preparation can leave it out)',
      got: isCited ? 'one prepared without' : '"hold-out"',
    }]),
    ...plan.flatMap(({ order, reweight }, i) => [
      ...(order === 'perplexity' && off.includes('score-ppl') ? [{ path: `plan.${i}.order`, expected: 'random: without score-ppl (corpus.off) no document has a perplexity', got: '"perplexity"' }] : []),
      ...(reweight && off.includes('classify-topics') ? [{ path: `plan.${i}.reweight`, expected: 'false: without classify-topics (corpus.off) there are no topics to reweight', got: 'true' }] : []),
    ]),
  ]
}
