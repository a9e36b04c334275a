import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadConfig } from './config.ts'

let folder: string
beforeEach(() => { folder = mkdtempSync(join(tmpdir(), 'cpt-failpoint-')) })
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const tsx = fileURLToPath(new URL('../../node_modules/tsx/dist/cli.mjs', import.meta.url))
const { python } = loadConfig()
const passing = {
  worker: (times: number) => spawnSync(process.execPath, [tsx, '-e', `import { failpoint, openFailpoints } from '${fileURLToPath(new URL('failpoint.ts', import.meta.url))}'; openFailpoints('${folder}'); for (let i = 0; i < ${times}; i++) { console.log(i); failpoint('job-submitted') }`], { encoding: 'utf8' }),
  job: (times: number) => spawnSync(python, ['-c', `from cpt_ml.failpoint import failpoint\nfor i in range(${times}):\n    print(i, flush=True); failpoint("job-submitted")`], { encoding: 'utf8', cwd: fileURLToPath(new URL('../../ml', import.meta.url)), env: { CPT_FAILPOINTS: folder } }),
}

test.each(['worker', 'job'] as const)('an armed failpoint ends the %s at its nth passing, once', (who) => {
  expect(passing[who](3).stdout.trim().split('\n')).toHaveLength(3)
  writeFileSync(join(folder, 'job-submitted'), '2')
  const killed = passing[who](3)
  expect(killed.stdout.trim().split('\n')).toHaveLength(2)
  expect(killed.status).not.toBe(0)
  expect(existsSync(join(folder, 'job-submitted'))).toBe(false)
  expect(passing[who](3).status).toBe(0)
})
