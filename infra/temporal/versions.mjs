/** The Temporal CLI we fetch or build, and the oldest that is taken from PATH. */
export const cliVersion = '1.8.2'
export const oldestCli = [1, 3, 0]
/** A self-built CLI calls itself 0.0.0-DEV; then the server inside it tells its age. */
export const oldestServer = [1, 28, 0]
/** `cliext` has no release tag of its own: the revision that belongs to cliVersion. */
export const cliextRevision = 'v0.0.0-20260731000218-c579925f193f'

const isAtLeast = (version, oldest) => {
  for (const [i, part] of oldest.entries()) if (version[i] !== part) return version[i] > part
  return true
}
const parts = (match) => match.slice(1, 4).map(Number)

/** Reads `temporal --version`: {text, isGood}. */
export const judgeVersion = (output) => {
  const cli = /version (\d+)\.(\d+)\.(\d+)/.exec(output)
  const server = /Server (\d+)\.(\d+)\.(\d+)/.exec(output)
  if (cli === null) return { text: output.trim().slice(0, 80), isGood: false }
  const isSelfBuilt = /version 0\.0\.0/.test(output)
  const isGood = isSelfBuilt ? server !== null && isAtLeast(parts(server), oldestServer) : isAtLeast(parts(cli), oldestCli)
  return { text: output.trim().replace(/^temporal version /, ''), isGood }
}
