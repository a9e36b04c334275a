import { pathToFileURL } from 'node:url'
import { provideTemporal } from '../temporal/provide.mjs'
import { buildBundles } from './bundles.mjs'
import { checkNode, findPython } from './interpreters.mjs'
import { main, say } from './progress.mjs'
import { installPython } from './python-environment.mjs'
import { installWorkspace } from './workspace.mjs'

/** Everything that a run needs; whatever is there already is reused. */
export const install = async () => {
  checkNode()
  const python = await findPython()
  say(`✓ Node ${process.versions.node}, Python ${python.version} (${python.path})`)
  await installWorkspace()
  // the download of torch leaves the processor idle, so the rest goes on beside it
  const beside = await Promise.allSettled([installPython(), buildBundles().then(() => provideTemporal({ say }))])
  for (const { reason, status } of beside) if (status === 'rejected') throw reason
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main(install)
