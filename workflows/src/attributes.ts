import { defineSearchAttributeKey, SearchAttributeType } from '@temporalio/common'

const keyword = (name: string) => defineSearchAttributeKey(name, SearchAttributeType.KEYWORD)

/** Typed keys of the search attributes in contracts/src/ids.ts. */
export const attributes = {
  kind: keyword('CptKind'), stage: keyword('CptStage'), status: keyword('CptStatus'), model: keyword('CptModel'), backend: keyword('CptBackend'), owner: keyword('CptOwner'),
  step: defineSearchAttributeKey('CptStep', SearchAttributeType.INT), recoveries: defineSearchAttributeKey('CptRecoveries', SearchAttributeType.INT),
  loss: defineSearchAttributeKey('CptLoss', SearchAttributeType.DOUBLE), almr: defineSearchAttributeKey('CptAlmr', SearchAttributeType.DOUBLE), lr: defineSearchAttributeKey('CptLr', SearchAttributeType.DOUBLE),
}
