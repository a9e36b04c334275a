const plainEveryMs = 10_000
const frames = ['⠋', '⠙', '⠸', '⠴', '⠦', '⠇']

/** Where progress goes: lines that stay, and one status that is rewritten in place on a terminal, repeated rarely elsewhere. */
export interface Screen {
  print(text: string): void
  status(text: string): void
  close(): void
}

/** Cuts to a number of terminal columns; wide characters count double. */
export const fit = (text: string, columns: number): string => {
  let used = 0
  let out = ''
  for (const char of text) {
    const width = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/.test(char) ? 2 : 1
    if (used + width > columns - 1) return `${out}…`
    used += width
    out += char
  }
  return out
}

const terminalScreen = (out: NodeJS.WriteStream): Screen => {
  let frame = 0
  const clear = () => out.write('\r\u001b[2K')
  return {
    print: (text) => {
      clear()
      out.write(`${text}\n`)
    },
    status: (text) => {
      clear()
      out.write(fit(`${frames[frame++ % frames.length] ?? ''} ${text}`, out.columns > 0 ? out.columns : 80))
    },
    close: () => void clear(),
  }
}

const plainScreen = (out: NodeJS.WritableStream, now: () => number): Screen => {
  let lastMs = -Infinity
  let lastText = ''
  return {
    print: (text) => void out.write(`${text}\n`),
    status: (text) => {
      if (text === lastText || text === '' || now() - lastMs < plainEveryMs) return
      lastMs = now()
      lastText = text
      out.write(`  ${text}\n`)
    },
    close: () => undefined,
  }
}

export const screen = (out: NodeJS.WriteStream = process.stdout): Screen => (out.isTTY ? terminalScreen(out) : plainScreen(out, () => performance.now()))
