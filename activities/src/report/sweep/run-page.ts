import type { Config } from '../../config.ts'
import type { PageOf } from './sweep-view.ts'

/** Pages of workflows in the Temporal UI; none where no UI is known, or its address is none of the web. */
export const runPages = ({ uiUrl, namespace }: Pick<Config['temporal'], 'uiUrl' | 'namespace'>): PageOf => {
  if (uiUrl === null || !/^https?:\/\//.test(uiUrl)) return () => null
  return (workflowId) => `${uiUrl.replace(/\/$/, '')}/namespaces/${part(namespace)}/workflows/${part(workflowId)}`
}

// half a surrogate pair cannot be encoded
const part = (text: string): string => encodeURIComponent(Buffer.from(text).toString('utf8'))
