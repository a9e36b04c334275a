import { z } from 'zod'

/** Any part of a value: objects lose keys at every depth, lists and scalars stay whole. */
export type PartOf<T> = T extends readonly unknown[] ? T : T extends object ? { [K in keyof T]?: PartOf<T[K]> | undefined } : T

/**
 * What a person may leave out is left out: no default is filled in, which would overwrite what a preset says
 * (`.partial()` of a schema with defaults does that).
 */
export const partOf = <S extends z.ZodRawShape>(schema: z.ZodObject<S>): z.ZodType<PartOf<z.output<z.ZodObject<S>>>, PartOf<z.input<z.ZodObject<S>>>> =>
  z.strictObject(Object.fromEntries(Object.entries(schema.shape).map(([key, field]) => [key, part(field as z.ZodType).optional()]))) as never

const part = (field: z.ZodType): z.ZodType => {
  if (field instanceof z.ZodDefault || field instanceof z.ZodOptional) return part(field.unwrap() as z.ZodType)
  if (field instanceof z.ZodNullable) return part(field.unwrap() as z.ZodType).nullable()
  return field instanceof z.ZodObject ? partOf(field) : field
}
