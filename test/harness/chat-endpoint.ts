import { once } from 'node:events'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { z } from 'zod'

/** A question of the chat protocol as label-topics asks it: the document, and the labels that an answer may be. */
export interface Question {
  model: string
  document: string
  labels: string[]
}

const Body = z.object({
  model: z.string(),
  messages: z.tuple([z.object({ content: z.string() }), z.object({ content: z.string() })]).rest(z.unknown()),
  response_format: z.object({ json_schema: z.object({ schema: z.object({ properties: z.object({ label: z.object({ enum: z.array(z.string()) }) }) }) }) }),
})

/** A real HTTP server of the OpenAI chat protocol on loopback; refuses who has not its key. */
export interface ChatEndpoint {
  readonly url: string
  readonly key: string
  /** Every question that was answered, in order. */
  readonly asked: readonly Question[]
  close: () => Promise<void>
}

/** Starts an endpoint that labels by a rule. */
export const startChatEndpoint = async (labelOf: (question: Question) => string): Promise<ChatEndpoint> => {
  const key = 'sk-of-the-worker-alone'
  const asked: Question[] = []
  const answer = async (request: IncomingMessage): Promise<[status: number, body: unknown]> => {
    if (request.headers.authorization !== `Bearer ${key}`) return [401, {}]
    if (request.method !== 'POST' || request.url !== '/v1/chat/completions') return [404, {}]
    const body = Body.parse(JSON.parse(Buffer.concat(await request.toArray() as Buffer[]).toString('utf8')))
    const question = { model: body.model, document: body.messages[1].content.split('\n').slice(1, -1).join('\n'), labels: body.response_format.json_schema.schema.properties.label.enum }
    asked.push(question)
    const content = JSON.stringify({ label: labelOf(question) })
    return [200, { choices: [{ message: { role: 'assistant', content }, finish_reason: 'stop' }], usage: { prompt_tokens: 100, completion_tokens: 5 } }]
  }
  const server = createServer((request, response) => {
    void answer(request)
      .catch((e: unknown): [number, unknown] => [400, { error: String(e) }])
      .then(([status, body]) => response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, key, asked,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
