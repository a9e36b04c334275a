interface Payload {
  metadata: Record<string, string>
  data: string
}

const isPayload = (v: object): v is Payload => 'metadata' in v && 'data' in v && typeof v.data === 'string'

/**
 * A history as it may be committed: paths, host and process numbers of the machine that recorded it are replaced, in
 * plain text and inside payloads alike, so that the same thing has the same name everywhere.
 */
export const scrubHistory = (history: unknown, replacements: readonly (readonly [from: string | RegExp, to: string])[]): unknown => {
  const scrubText = (text: string): string => replacements.reduce((t, [from, to]) => t.replaceAll(from, to), text)
  const scrub = (value: unknown): unknown => {
    if (typeof value === 'string') return scrubText(value)
    if (Array.isArray(value)) return value.map(scrub)
    if (typeof value !== 'object' || value === null) return value
    if (isPayload(value)) return { ...value, data: Buffer.from(scrubText(Buffer.from(value.data, 'base64').toString('utf8'))).toString('base64') }
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, scrub(v)]))
  }
  return scrub(history)
}
