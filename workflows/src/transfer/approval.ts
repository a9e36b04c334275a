import { condition, setHandler } from '@temporalio/workflow'
import { Approval, type ConfirmationVerdict } from '@cpt/contracts/model-transfer'
import { problemsOf } from '@cpt/contracts/parse-input'
import { approveUpdate } from '../messages.ts'
import type { Run } from '../run.ts'

/** The update `approve`, answered with the evidence on the page. A repeated one is told what was decided. */
export const openApproval = (run: Run): ((confirmation: ConfirmationVerdict, lines: readonly string[]) => Promise<Approval>) => {
  let asked: ConfirmationVerdict | null = null
  let given: Approval | null = null

  const check = (raw: unknown): string | null => {
    const parsed = Approval.safeParse(raw ?? {})
    if (!parsed.success) return problemsOf(parsed.error, raw).map((p) => `${p.path}: expected ${p.expected}, got ${p.got}`).join('; ')
    if (given !== null) return null
    if (asked === null) return 'nothing to approve yet: the confirmation on the target is not finished'
    if (asked.outcome !== 'holds' && parsed.data.approved && parsed.data.reason.trim() === '') return `reason: expected one, for the confirmation says ${asked.outcome}: ${asked.words[0] ?? ''}`
    return null
  }
  setHandler(
    approveUpdate,
    (raw) => {
      if (given !== null) return `already ${given.approved ? 'approved' : 'refused'} by ${given.by}`
      given = Approval.parse(raw)
      return given.approved ? 'approved: the run on the target begins' : 'refused: the transfer ends without a run'
    },
    {
      validator: (raw) => {
        const problem = check(raw)
        if (problem !== null) throw new Error(problem)
      },
      description: 'Approve the run on the target, or refuse it. Example: {"approved": true, "by": "ann", "reason": "confirmed within the tolerance"}',
    },
  )

  return async (confirmation, lines) => {
    asked = confirmation
    run.asks({ update: 'approve', lines: [...lines] })
    await condition(() => given !== null)
    run.asks(null)
    if (given === null) throw new TypeError('approval: the answer vanished')
    return given
  }
}
