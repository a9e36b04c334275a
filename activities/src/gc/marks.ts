/** What somebody still wants: fingerprints of committed or unfinished work, and folders of decisions. */
export interface Marks {
  fingerprints: Set<string>
  decisions: Set<string>
}

export const noMarks = (): Marks => ({ fingerprints: new Set(), decisions: new Set() })

/** Adds everything that a text names. Any digest counts: one that is no fingerprint marks nothing. */
export const markAll = (marks: Marks, text: string): void => {
  for (const [digest] of text.matchAll(/(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])/g)) marks.fingerprints.add(digest)
  for (const [, folder = ''] of text.matchAll(/\bdecisions\/([A-Za-z0-9._-]+)\//g)) marks.decisions.add(folder)
}

export const marksIn = (text: string): Marks => {
  const marks = noMarks()
  markAll(marks, text)
  return marks
}

export const union = (...all: Marks[]): Marks => ({
  fingerprints: new Set(all.flatMap((m) => [...m.fingerprints])),
  decisions: new Set(all.flatMap((m) => [...m.decisions])),
})
