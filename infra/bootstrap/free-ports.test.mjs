import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { freePorts } from './free-ports.mjs'

test('free ports differ, and no outgoing connection is given one of them', async () => {
  const ports = await freePorts(20)
  expect(new Set(ports).size).toBe(20)
  const [from] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').trim().split(/\s+/).map(Number)
  for (const port of ports) expect(port < from || from <= 12_000).toBe(true)
})
