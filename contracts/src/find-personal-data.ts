import { z } from 'zod'
import { ArtifactRef } from './artifact.ts'
import { stage } from './stage.ts'
import { Count, Kind } from './units.ts'

export const PersonalDataKind = z.enum(['email', 'phone', 'id-number'])

/** What stands in the tokens and in the validation sets in place of what was found. */
export const Placeholders = z.strictObject({
  'email': z.string().max(100).default('<email>'),
  'phone': z.string().max(100).default('<phone>'),
  'id-number': z.string().max(100).default('<id-number>'),
})

/** Where documents of these kinds of source have e-mail addresses, telephone numbers and identity numbers. Nothing is rewritten. */
export const FindPersonalDataRequest = z.strictObject({
  corpus: ArtifactRef,
  drops: z.array(ArtifactRef),
  kinds: z.array(Kind).default(['web']),
  find: z.array(PersonalDataKind).default(['email', 'phone', 'id-number']),
})
const ByKind = z.record(z.string(), Count)
export const FindPersonalDataResult = z.object({
  personalData: ArtifactRef,
  /** Documents looked at, those with any, and how often each kind was found: in all, and by language. */
  counts: z.object({ docs: Count, withAny: Count, found: ByKind, byLanguage: z.record(z.string(), ByKind) }),
})
export const findPersonalData = stage({
  name: 'find-personal-data',
  version: 1,
  shape: { kind: 'map', manifests: ['corpus', 'drops'], outputs: ['personalData'] },
  request: FindPersonalDataRequest,
  result: FindPersonalDataResult,
})
