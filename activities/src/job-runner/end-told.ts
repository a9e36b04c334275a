import { watch } from 'node:fs'

/**
 * Resolves when `end.json` appears in a job's folder from now on: its end is known at once and not only at the next look.
 * Never resolves where the file system tells nothing (a network folder, no watches left). Watches until `signal`.
 */
export const endTold = (folder: string, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    try {
      const watcher = watch(folder, { signal, persistent: false }, (_event, name) => {
        if (name === 'end.json') resolve()
      })
      watcher.on('error', () => { watcher.close() })
    } catch {
      // the next look finds it
    }
  })
