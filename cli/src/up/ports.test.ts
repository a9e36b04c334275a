import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { choosePorts, rememberPorts } from './ports.ts'

let folder: string
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'cpt-ports-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

test('ports used before are used again, so that bookmarks stay good', async () => {
  const first = await choosePorts(folder, {}, false)
  expect(new Set(Object.values(first)).size).toBe(3)
  rememberPorts(folder, first)
  expect(await choosePorts(folder, {}, false)).toEqual(first)
})

test('a port that is taken is refused when given, and replaced when only remembered', async () => {
  const server = createServer()
  const port = await new Promise<number>((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port)))
  try {
    await expect(choosePorts(folder, { ui: port }, false)).rejects.toThrow(`port ${port}`)
    rememberPorts(folder, { ...(await choosePorts(folder, {}, false)), ui: port })
    expect((await choosePorts(folder, {}, false)).ui).not.toBe(port)
  } finally {
    server.close()
  }
})
