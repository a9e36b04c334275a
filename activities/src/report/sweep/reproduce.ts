import type { AlmrLrSweepInput } from '@cpt/contracts/almr-lr-sweep'
import type { ResolvedSweep } from '@cpt/contracts/activities'
import { h } from '../html.ts'
import type { Section } from '../page.ts'
import { details } from '../table.ts'
import type { SweepView } from './sweep-view.ts'

/** The input that asks for exactly this sweep, every default written out. */
export const inputOf = ({ sweep, run }: ResolvedSweep): AlmrLrSweepInput => {
  const { plan: _plan, ...shared } = run.spec
  return { ...sweep, run: shared }
}

/** How to get the same sweep again. */
export const reproduce = (view: SweepView): Section => {
  const { verdictRef, resolved } = view.request
  const body = h`
<p>Save the JSON below as <code>sweep.json</code> and start it, from a checkout that has the same files under its roots:</p>
<pre>npx cpt sweep sweep.json</pre>
<p>or in the Temporal UI: workflow type <code>almrLrSweep</code>, task queue <code>cpt</code>, with the same JSON as input. Trials whose fingerprints are committed in the store are not trained again; to compute all of it again, start with an empty store.</p>
<p>It came to the same when the verdict has the same digest: ${verdictRef === null ? 'none was kept' : h`<code>${verdictRef.sha256}</code>`}.</p>
${details('sweep.json', h`<pre>${JSON.stringify(inputOf(resolved), null, 2)}</pre>`)}`
  return { id: 'reproduce', title: 'How to reproduce', body }
}
