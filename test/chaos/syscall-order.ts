/**
 * Temporary files that got a record's name before a sync of their bytes had begun, from the output of
 * `strace -f -y -e trace=fsync,fdatasync,link,linkat`. Calls of threads may be cut in two lines; a call's first line counts.
 */
export const unsyncedRecords = (trace: string): { linked: number; unsynced: string[] } => {
  const synced = new Set<string>()
  const unsynced: string[] = []
  let linked = 0
  for (const line of trace.split('\n')) {
    const sync = /\bf(?:data)?sync\(\d+<([^>]*)>/.exec(line)?.[1]
    if (sync !== undefined) synced.add(sync)
    const source = /\blink(?:at)?\([^"]*"([^"]*\/\.tmp-[^"]*)"/.exec(line)?.[1]
    if (source === undefined) continue
    linked += 1
    if (!synced.has(source)) unsynced.push(source)
  }
  return { linked, unsynced }
}
