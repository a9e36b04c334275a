import { execFileSync } from 'node:child_process'
import { loadConfig } from '@cpt/activities/config'

const { home } = loadConfig()
// a checkout that belongs to another user is a checkout all the same
const git = (...args: string[]): string => execFileSync('git', ['-c', 'safe.directory=*', '-C', home, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 26 })

export interface History {
  /** The file's text at each commit that changed it, newest first. */
  texts: { commit: string; text: string }[]
  /** How far back that goes, for the name of a test: a shallow clone has not everything. */
  reach: string
}

/** What git remembers of a file of this checkout, up to HEAD. */
export const historyOf = (path: string): History => {
  try {
    const commits = git('log', '--full-history', '--diff-filter=AM', '--format=%H', '--', path).split('\n').filter(Boolean)
    const texts = commits.map((commit) => ({ commit: commit.slice(0, 10), text: git('show', `${commit}:${path}`) }))
    const shallow = git('rev-parse', '--is-shallow-repository').trim() === 'true'
    return { texts, reach: `${commits.length} commits${shallow ? '; the clone is shallow, older ones are NOT compared: git fetch --unshallow' : ''}` }
  } catch {
    return { texts: [], reach: 'no git history here, so nothing older is compared' }
  }
}
