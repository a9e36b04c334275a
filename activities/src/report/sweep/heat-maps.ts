import { h, type Html } from '../html.ts'
import { count, fixed, languageName } from '../numbers.ts'
import type { Section } from '../page.ts'
import { figure, note } from '../table.ts'
import { hatches, heatMap, marks, mostPairedColumns } from './heat-map.ts'
import { lowIsStrong, parted } from './shades.ts'
import type { SweepView } from './sweep-view.ts'

/** Both losses over the grid. */
export const heatMaps = (view: SweepView): Section => {
  const { request, base, bound } = view
  const complete = view.cells.filter((c) => c.state !== 'incomplete').map((c) => c.losses)
  const [added, retained] = [complete.map((l) => l.added), complete.map((l) => l.retained)]
  const { run, sweep } = request.resolved
  const missing = (Object.keys(marks) as (keyof typeof marks)[]).filter((s) => view.trials.some((t) => t.status === s))
  const body = view.cells.length === 0 ? h`<p class="absent">No trial is on record, so there is no grid to show.</p>` : h`
${key(view)}
<div class="maps${view.almrs.length <= mostPairedColumns ? ' paired' : ''}">
${figure(`Added language: ${languageName(run.spec.targetLanguage)}`, heatMap(view, { id: 'map-added', of: 'added', base: base.added, shades: lowIsStrong(added), ticks: [{ value: base.added, name: 'base' }] }), `lower is better; base ${fixed(base.added, 3)}`)}
${figure('Retained language', heatMap(view, { id: 'map-retained', of: 'retained', base: base.retained, shades: Number.isNaN(bound) ? lowIsStrong(retained) : parted(retained, bound), ticks: [{ value: base.retained, name: 'base' }, { value: bound, name: 'allowed' }] }), Number.isNaN(bound) ? 'the base was not measured' : `blue: allowed; orange: more than +${sweep.choice.retentionToleranceNats} above the base, ${fixed(base.retained, 3)}`)}
</div>
${note(h`Losses in nats per token on the frozen validation sets, means over seeds; second line: change against the base. Each seed of a cell links to its run${missing.length === 0 ? '' : ` (${missing.map((s) => `${marks[s]} ${s}`).join(', ')})`}.${view.trials.length > 3000 ? h` Of ${count(view.trials.length)} trials only the first of each cell is linked from the maps.` : ''}`)}`
  return { id: 'maps', title: 'Heat maps', body }
}

const key = (view: SweepView): Html => {
  const swatch = (body: Html): Html => h`<svg viewBox="0 0 30 20" aria-hidden="true">${body}</svg>`
  const shown = (state: string): boolean => view.cells.some((c) => c.state === state)
  const entry = (body: Html, text: string): Html => h`<li>${swatch(body)}${text}</li>`
  return h`<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>${hatches('key')}</defs></svg><ul class="key">
${view.chosen === null ? '' : entry(h`<rect x="3" y="3" width="24" height="14" fill="var(--heat)" stroke="var(--ink)" stroke-width="3.5"></rect>`, 'best: chosen')}
${view.cells.some((c) => c.isTied) ? entry(h`<rect x="3" y="3" width="24" height="14" fill="var(--pale)" stroke="var(--ink)" stroke-width="2" stroke-dasharray="5 3"></rect>`, 'tie: cannot be told from it') : ''}
${shown('infeasible') ? entry(h`<rect x="1" y="1" width="28" height="18" fill="var(--pale)"></rect><rect x="1" y="1" width="28" height="18" fill="url(#key-infeasible)"></rect>`, 'infeasible: forgets more than allowed') : ''}
${shown('incomplete') ? entry(h`<rect x="1" y="1" width="28" height="18" fill="var(--blank)"></rect><rect x="1" y="1" width="28" height="18" fill="url(#key-incomplete)"></rect>`, 'failed or incomplete: no candidate') : ''}
${(view.request.verdict?.edges.length ?? 0) > 0 ? entry(h`<line x1="1" y1="10" x2="29" y2="10" stroke="var(--bad)" stroke-width="5" stroke-dasharray="10 5"></line>`, 'edge of the grid that the optimum lies on') : ''}</ul>`
}
