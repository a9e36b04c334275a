export interface Uv {
  path: string
  version: string
  own: boolean
}
export function findUv(): Promise<Uv | null>
export function provideUv(): Promise<Uv>
export function pythonIsInstalled(): boolean
export function installPython(): Promise<void>
