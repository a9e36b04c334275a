const firstMs = 250
const longestMs = 30_000

/** How long to wait before the n-th restart in a row (n from 1): doubling, up to half a minute. */
export const backoffMs = (deaths: number): number => Math.min(longestMs, firstMs * 2 ** Math.max(0, deaths - 1))
