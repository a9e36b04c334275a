import { createServer, request as send, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What happens to a request; `lost` executes it and breaks the connection instead of answering. */
export type Fate = 'pass' | 'dropped' | 'lost' | { lostAfter: () => Promise<unknown> } | { status: number; code: string; executed: boolean }

export interface Seen {
  nth: number
  method: string
  key: string
}

export interface FaultyProxy {
  endpoint: string
  /** Requests since the last reset. */
  seen: Seen[]
  reset: () => void
  close: () => Promise<void>
}

/** A proxy before an S3 server that decides the fate of each request: signatures hold, since the host's name is kept. */
export const startFaultyProxy = async (target: string, fateOf: (request: Seen) => Fate | Promise<Fate>): Promise<FaultyProxy> => {
  const { hostname, port } = new URL(target)
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const handle = async (): Promise<void> => {
      const body = Buffer.concat((await request.toArray()) as Buffer[])
      const mine = { nth: seen.length + 1, method: request.method ?? '', key: decodeURIComponent((request.url ?? '').split('?')[0] ?? '') }
      seen.push(mine)
      const fate = await fateOf(mine)
      if (fate === 'dropped') return void request.socket.destroy()
      if (typeof fate === 'object' && 'status' in fate && !fate.executed) return void response.writeHead(fate.status, { 'content-type': 'application/xml' }).end(errorXml(fate.code))
      const answer = await new Promise<IncomingMessage>((resolve, reject) => {
        send({ hostname, port, method: request.method, path: request.url, headers: request.headers }, resolve).once('error', reject).end(body)
      })
      const content = Buffer.concat((await answer.toArray()) as Buffer[])
      if (typeof fate === 'object' && 'lostAfter' in fate) await fate.lostAfter()
      if (fate === 'lost' || (typeof fate === 'object' && 'lostAfter' in fate)) return void request.socket.destroy()
      if (typeof fate === 'object') return void response.writeHead(fate.status, { 'content-type': 'application/xml' }).end(errorXml(fate.code))
      response.writeHead(answer.statusCode ?? 500, answer.headers).end(content)
    }
    handle().catch(() => request.socket.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    reset: () => void seen.splice(0),
    close: () => new Promise((resolve) => {
      server.closeAllConnections()
      server.close(() => resolve())
    }),
  }
}

const errorXml = (code: string): string => `<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>made by a test</Message></Error>`
