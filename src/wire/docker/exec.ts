import { z } from 'zod';

/** Tolerant, as all that Docker's clients send. Source: moby api/docs/v1.51.yaml, definitions ExecConfig and ExecStartConfig. */
const flag = z.boolean().nullish();
const textList = z.array(z.string()).nullish();
/** Height, width: cells of a terminal, of which the kernel counts 65535. */
const cells = z.number().int().min(0).max(0xffff);
const consoleSize = z.tuple([cells, cells]).nullish();

/** Body of `POST /containers/{id}/exec`. */
export const execCreateSchema = z.looseObject({
  AttachStdin: flag,
  AttachStdout: flag,
  AttachStderr: flag,
  ConsoleSize: consoleSize,
  DetachKeys: z.string().nullish(),
  Tty: flag,
  Env: textList,
  Cmd: textList,
  Privileged: flag,
  User: z.string().nullish(),
  WorkingDir: z.string().nullish(),
});

/** Body of `POST /exec/{id}/start`. */
export const execStartSchema = z.looseObject({ Detach: flag, Tty: flag, ConsoleSize: consoleSize });

export type ExecCreateRequest = z.infer<typeof execCreateSchema>;
