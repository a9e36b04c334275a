/**
 * `npm run chaos:train -- --kills 200 --seed 1 --processes 1|2`: random kills of real trainings (ml/tests/chaos_train.py).
 * Rows go to test/bench/results/chaos-train.json, one a number of processes.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const ml = fileURLToPath(new URL('../../ml', import.meta.url))
const rows = fileURLToPath(new URL('../bench/results/chaos-train.json', import.meta.url))
const { status } = spawnSync(`${ml}/.venv/bin/python`, ['tests/chaos_train.py', '--rows', rows, ...process.argv.slice(2)], { cwd: ml, stdio: 'inherit', env: { ...process.env, PYTHONPATH: ml } })
process.exitCode = status ?? 1
