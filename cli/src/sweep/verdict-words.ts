import type { SweepVerdict } from '@cpt/contracts/sweep'
import { plainText } from '../plain-text.ts'
import { table } from '../run/table.ts'

const nats = (loss: number | undefined): string => (loss === undefined ? '–' : loss.toFixed(4))

/** What a sweep found: every cell of its grid, then the verdict in sentences. */
export const verdictWords = ({ cells, chosen, words }: SweepVerdict): string =>
  [
    table(
      ['ALMR', 'peak LR', 'added, nats/token', 'retained', 'seeds', ''],
      cells.map((c) => [String(c.almr), String(c.peakLr), nats(c.added?.perToken), nats(c.retained?.perToken), `${c.measured} of ${c.seeds}`, chosen !== null && chosen.almr === c.almr && chosen.peakLr === c.peakLr ? 'chosen' : c.state]),
    ),
    '',
    ...words.map(plainText),
  ].join('\n')
