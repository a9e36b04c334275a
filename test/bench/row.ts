/** One line of `test/bench/results/<name>.json`: a measure beside a named peer's in the same run, and whether its goal holds. */
export interface BenchRow {
  measure: string
  ours: number
  peer: number | null
  peerName: string | null
  unit: string
  ratio: number | null
  goal: string
  holds: boolean
}
