import { exportModel } from '@cpt/contracts/export-model'
import { h } from './html.ts'
import type { Section } from './page.ts'
import { details } from './table.ts'
import { resultOf, type View } from './view.ts'

/** How to get the same model again, and how to see that it is the same. */
export const reproduce = (view: View): Section => {
  const { spec } = view.request
  const weights = resultOf(view, 'export-model', exportModel)?.weightsSha256 ?? view.rounds.findLast((r) => r.train !== null)?.train?.weightsSha256
  const body = h`
<p>Save the specification below as <code>run.json</code> and start it, from a checkout that has the same files under its roots:</p>
<pre>npx cpt run run.json</pre>
<p>or in the Temporal UI: workflow type <code>cptRun</code>, task queue <code>cpt</code>, with the same JSON as input. Stages whose fingerprints are committed in the store are reused; to compute all of it again, start with an empty store.</p>
<p>It is the same run when the digests under <a href="#lineage">Lineage</a> agree, above all the final weights’: ${weights === undefined ? 'not known' : h`<code>${weights}</code>`}. They agree bit by bit on the same kind of processor with the same number of threads and the locked libraries; elsewhere the losses agree to a few thousandths of a nat.</p>
${details('run.json', h`<pre>${JSON.stringify(spec, null, 2)}</pre>`)}`
  return { id: 'reproduce', title: 'How to reproduce', body }
}
