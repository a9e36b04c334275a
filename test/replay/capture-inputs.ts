// Bundled into workflow code that is replayed: tells what every activity, child workflow, and the next run of a chain, was called with.
import { CancellationScope, proxySinks, type Sinks, type WorkflowInterceptors } from '@temporalio/workflow'

export interface InputSinks extends Sinks {
  inputs: {
    /** `call` is an activity's id, a child's workflow id or `continueAsNew`; `args` are JSON, as they were at the time of the call. */
    called: (call: string, args: string) => void
  }
}

const { inputs } = proxySinks<InputSinks>()

/** Hands on the promises as they are: an await more would change the order in which the workflow goes on. */
export const interceptors = (): WorkflowInterceptors => ({
  outbound: [
    {
      scheduleActivity: (input, next) => {
        // a call within a cancelled scope schedules nothing
        if (!CancellationScope.current().consideredCancelled) inputs.called(input.options.activityId ?? String(input.seq), JSON.stringify(input.args))
        return next(input)
      },
      startChildWorkflowExecution: (input, next) => {
        if (!CancellationScope.current().consideredCancelled) inputs.called(input.options.workflowId, JSON.stringify(input.options.args))
        return next(input)
      },
      continueAsNew: (input, next) => {
        inputs.called('continueAsNew', JSON.stringify(input.args))
        return next(input)
      },
    },
  ],
})
