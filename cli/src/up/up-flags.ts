import type { Ports } from './ports.ts'

export interface UpFlags {
  json?: boolean
  detach?: boolean
  state?: string
  port?: number
  uiPort?: number
  reportsPort?: number
}

export const portsOf = ({ port, uiPort, reportsPort }: UpFlags): Partial<Ports> => ({
  ...(port !== undefined ? { server: port } : {}),
  ...(uiPort !== undefined ? { ui: uiPort } : {}),
  ...(reportsPort !== undefined ? { reports: reportsPort } : {}),
})
