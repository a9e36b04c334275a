/** `npm run judge:topics -- --train FILE --heldout FOLDER [--json FILE] [--seed N] [--encoder FOLDER [--settings JSON]]`: see judge_topics.py. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { loadConfig } from '@cpt/activities/config'

const { home, python, jobEnv } = loadConfig()
const from = process.env['INIT_CWD'] ?? process.cwd()
const { status } = spawnSync(python, [join(home, 'test/judge/judge_topics.py'), ...process.argv.slice(2)], { cwd: from, env: jobEnv, stdio: 'inherit' })
process.exitCode = status ?? 1
