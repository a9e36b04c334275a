export interface S3Server {
  endpoint: string
  bucket: string
  region: string
  credentials: { accessKeyId: string; secretAccessKey: string }
  /** What a process needs beside CPT_STORE=s3://<bucket>/<prefix>. */
  env: { CPT_S3_ENDPOINT: string; AWS_REGION: string; AWS_ACCESS_KEY_ID: string; AWS_SECRET_ACCESS_KEY: string }
  /** Where the bucket's objects lie as files. */
  folder: string
  /** Starts it again, on the same port and folder, after a kill. */
  start: () => Promise<void>
  kill: () => Promise<void>
  /** Ends it and removes its folder. */
  stop: () => Promise<void>
}
export function startS3(options?: { say?: (line: string) => void }): Promise<S3Server>
