import { randomInt } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

const host = '127.0.0.1'
const tries = 200

/** Listens on a port of 127.0.0.1 (0: any): its server, or null where it is taken. */
const listen = (port) =>
  new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(null))
    server.listen(port, host, () => resolve(server))
  })

/** Where the system takes the ports of outgoing connections from: one that is free now may be taken a moment later, or while its server restarts. */
const firstOfConnections = () => {
  try {
    return Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10)
  } catch {
    return 32_768
  }
}

export const isFree = async (port) => {
  const server = await listen(port)
  if (server !== null) await new Promise((resolve) => server.close(resolve))
  return server !== null
}

/** `count` different free ports of 127.0.0.1, below those of outgoing connections where there is room. */
export const freePorts = async (count) => {
  const from = firstOfConnections()
  const servers = []
  for (let tried = 0; servers.length < count; tried += 1) {
    const isRoom = from > 12_000 && tried < tries
    const server = await listen(isRoom ? randomInt(10_240, from) : 0)
    if (server !== null) servers.push(server)
    else if (!isRoom) throw new Error(`no free port on ${host}: is the loopback interface up?`)
  }
  const ports = servers.map((s) => s.address().port)
  await Promise.all(servers.map((s) => new Promise((resolve) => s.close(resolve))))
  return ports
}
