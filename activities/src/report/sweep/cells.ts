import { h, type Html } from '../html.ts'
import { count, fixed, rate, signed } from '../numbers.ts'
import type { Section } from '../page.ts'
import { badge, note, table } from '../table.ts'
import { stateWords } from './heat-map.ts'
import type { Cell, SweepView } from './sweep-view.ts'

const maxRows = 3000

/** Every cell with its means, its state, and the reason for it. */
export const cells = (view: SweepView): Section => {
  const { base } = view
  const body = h`${table<Cell>(
    [
      { head: 'ALMR', numeric: true, cell: (c) => c.almr },
      { head: 'Peak LR', numeric: true, cell: (c) => rate(c.peakLr) },
      { head: 'Seeds', numeric: true, cell: (c) => (c.measured === c.seeds ? count(c.seeds) : `${c.measured} of ${c.seeds}`) },
      { head: 'Added, nats/token', numeric: true, cell: (c) => fixed(c.losses.added, 4) },
      { head: 'against base', numeric: true, cell: (c) => signed(c.losses.added - base.added, 4) },
      { head: 'Retained, nats/token', numeric: true, cell: (c) => fixed(c.losses.retained, 4) },
      { head: 'against base', numeric: true, cell: (c) => signed(c.losses.retained - base.retained, 4) },
      { head: 'State', cell: stateBadge },
      { head: 'Reason', cell: (c) => reason(view, c) },
    ],
    view.cells.slice(0, maxRows),
    { tint: (c) => (c.isChosen ? 'chosen' : '') },
  )}
${note(h`Base: added ${fixed(base.added, 4)}, retained ${fixed(base.retained, 4)} nats per token; allowed is a retained loss up to ${fixed(view.bound, 4)}. A cell is a candidate when every seed of it was measured and its ALMR is above 0.`)}`
  return { id: 'cells', title: 'Cells of the grid', body }
}

const stateBadge = (c: Cell): Html => badge(c.isChosen ? 'good' : c.state === 'infeasible' ? 'bad' : c.state === 'incomplete' || c.state === 'unjudged' ? 'warn' : 'plain', c.isChosen ? 'chosen' : c.isTied ? 'tie' : c.state)

const reason = (view: SweepView, c: Cell): string => {
  const room = view.bound - c.losses.retained
  const lacking = c.trials.filter((t) => t.measurement === null)
  if (c.isChosen) return `lowest added loss of what is feasible, ${fixed(room, 4)} nats below what is allowed`
  if (c.isTied) return 'within the errors of the chosen one'
  switch (c.state) {
    case 'control': return 'trained on the retained languages alone; no candidate'
    case 'feasible': return `${fixed(room, 4)} nats below what is allowed`
    case 'infeasible': return `forgets ${fixed(-room, 4)} nats more than allowed`
    case 'incomplete': return lacking.length === 0 ? stateWords(c) : lacking.map((t) => `seed ${t.point.seed}: ${t.status}`).join(', ')
    case 'unjudged': return 'the base was not measured'
  }
}
