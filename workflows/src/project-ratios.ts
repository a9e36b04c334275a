/**
 * The nearest point (Euclidean) to `wanted` with Σ = 1, x ≥ floor and |x − previous| ≤ cap: clamping and renormalising
 * would break the caps. A ratio that is below the floor now rises towards it by at most `cap`; where the floors leave
 * no room they give way to `previous`, which always satisfies the rest. `previous` sums to 1.
 */
export const projectRatios = (wanted: readonly number[], previous: readonly number[], floor: number, cap: number): number[] => {
  const high = previous.map((r) => Math.min(1, r + cap))
  const strict = previous.map((r, i) => Math.min(Math.max(floor, r - cap), high[i] ?? 1))
  const low = sum(strict) <= 1 ? strict : previous.map((r) => Math.max(Math.min(floor, r), r - cap))
  const at = (shift: number): number[] => wanted.map((w, i) => Math.min(Math.max(w - shift, low[i] ?? 0), high[i] ?? 1))
  // Σ at(shift) falls as the shift rises; 200 halvings of [-2, 2] are exact to the last bit of a double
  let [from, to] = [-2, 2]
  for (let i = 0; i < 200; i++) {
    const middle = (from + to) / 2
    if (sum(at(middle)) > 1) from = middle
    else to = middle
  }
  return at((from + to) / 2)
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
