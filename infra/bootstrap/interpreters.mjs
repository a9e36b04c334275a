import { SetupError } from './progress.mjs'
import { ask } from './run-command.mjs'

const oldestNode = [20, 19]
const pythons = ['python3.13', 'python3.12', 'python3.11', 'python3', 'python']

/** Throws unless this Node can run the project. */
export const checkNode = (version = process.versions.node) => {
  const [major, minor] = version.split('.').map(Number)
  if (major > oldestNode[0] || (major === oldestNode[0] && minor >= oldestNode[1])) return
  throw new SetupError(`Node ${version} is too old: expected ${oldestNode.join('.')} or newer`, 'Install a current Node, e.g. from https://nodejs.org, and run the command again.')
}

/** The newest Python from 3.11 to 3.13 on PATH as {path, version}; shims of absent versions are passed over. */
export const findPython = async (names = pythons) => {
  const seen = []
  for (const name of names) {
    const answer = await ask(name, ['-c', 'import sys; print(sys.executable); print("%d.%d.%d" % sys.version_info[:3])'])
    if (answer === null) continue
    const [path, version] = answer.trim().split('\n').slice(-2)
    const [major, minor] = version.split('.').map(Number)
    if (major === 3 && minor >= 11 && minor <= 13) return { path, version }
    seen.push(`${name} is ${version}`)
  }
  throw new SetupError(
    `No Python 3.11, 3.12 or 3.13 on PATH${seen.length > 0 ? ` (${seen.join(', ')})` : ''}`,
    'Install one, e.g. `apt-get install python3 python3-venv`, `brew install python@3.13` or from https://python.org, and run the command again.',
  )
}
