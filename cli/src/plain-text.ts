// what a job or a document says may hold escape sequences that repaint a terminal
const escapes = /\u001b\[[0-9;?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-_]/g
const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g

/** Text from outside, safe to print to a terminal: no escape sequences, control characters or direction overrides. */
export const plainText = (text: string): string => text.replace(escapes, '').replace(controls, ' ')
