// Bundles the worker and its workflows: Node 20 runs no TypeScript, and our packages export their source.
import { mkdir, writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { bundleWorkflowCode, DefaultLogger } from '@temporalio/worker'
import { build } from 'esbuild'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

await mkdir(here('dist'), { recursive: true })
await build({
  entryPoints: [here('src/main.ts')],
  outfile: here('dist/main.js'),
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  sourcemap: 'linked',
  // the SDK loads a native module and its own files by path; pino starts its transports by path
  external: ['@temporalio/*', 'pino'],
  banner: { js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);" },
  logLevel: 'warning',
})
const { code } = await bundleWorkflowCode({ workflowsPath: here('../workflows/src/workflows.ts'), logger: new DefaultLogger('WARN') })
await writeFile(here('dist/workflows.js'), code)
