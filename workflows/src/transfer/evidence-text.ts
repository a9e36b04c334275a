import type { ConfirmationVerdict, ConfirmedPoint } from '@cpt/contracts/model-transfer'
import { argument, plain } from '../page.ts'

const gap = '\u00a0\u00a0 '
const signed = (value: number | undefined): string => (value === undefined ? '–' : `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(4)}`)

/** What a person approves or refuses, as Markdown for the page, with what to paste. */
export const evidenceText = ({ outcome, unit, points, words }: ConfirmationVerdict, { source, words: ofSweep, workflowId }: { source: string; words: readonly string[]; workflowId: string }): string[] => [
  `### Waits for approval: the confirmation ${outcome === 'holds' ? 'holds' : `says **${outcome}**`}`,
  '',
  ...words.map(plain).flatMap((w) => [w, '']),
  `| point${gap}| ALMR${gap}| peak LR${gap}| added, proxy${gap}| added, target${gap}| retained, proxy${gap}| retained, target${gap}| feasible |`,
  '|---|---:|---:|---:|---:|---:|---:|---|',
  ...points.map(row),
  '',
  `Changes against the own base in ${unit}; predicted by ${plain(source)}.`,
  '',
  ...ofSweep.slice(0, 3).map((w) => `> ${plain(w)}`),
  '',
  'Open **More Actions** above, press **Send an Update**, choose `approve`, and paste (approved: false ends the transfer without a run):',
  '```json',
  JSON.stringify({ approved: true, by: '', reason: '' }, null, 2),
  '```',
  'or run',
  '```sh',
  `npx cpt approve ${argument(workflowId)}${outcome === 'holds' ? '' : ` --reason ''`}`,
  '```',
  '',
]

const row = ({ role, almr, targetLr, predicted, found, feasible }: ConfirmedPoint): string =>
  `| ${role}${gap}| ${almr}${gap}| ${targetLr}${gap}| ${signed(predicted?.added)}${gap}| ${signed(found?.added)}${gap}| ${signed(predicted?.retained)}${gap}| ${signed(found?.retained)}${gap}| ${feasible === null ? '–' : feasible ? 'yes' : 'no'}${gap}|`
