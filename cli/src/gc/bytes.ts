const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** 0 B, 1.5 KiB, 12.3 GiB */
export const bytesWords = (bytes: number): string => {
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${units[power] ?? 'B'}`
}
