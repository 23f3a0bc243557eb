import { ApiError } from '../../client/index.ts';
import { defineCommand, printLine } from '../command.ts';
import { defineFlags } from '../flags/flag-table.ts';
import { forEachName, forEachNameInOrder } from './for-each-name.ts';

const CONTAINERS = '[OPTIONS] CONTAINER [CONTAINER...]';

const STOP_FLAGS = defineFlags({
  signal: { kind: 'string', short: 's', summary: 'Signal to send to the container' },
  time: { kind: 'integer', summary: 'Seconds to wait before killing the container', hidden: true },
  timeout: { kind: 'integer', short: 't', summary: 'Seconds to wait before killing the container' },
});

export const stopCommand = defineCommand({
  usage: CONTAINERS,
  flags: STOP_FLAGS,
  arity: { min: 1 },
  async run(context, flags, names) {
    const options = { timeoutSeconds: flags.timeout ?? flags.time, signalName: flags.signal };
    await forEachName(context, names, async (name) => {
      await context.client().containers.stop(name, options);
      printLine(context.stdout, name);
    });
  },
});

export const restartCommand = defineCommand({
  usage: CONTAINERS,
  flags: STOP_FLAGS,
  arity: { min: 1 },
  async run(context, flags, names) {
    const options = { timeoutSeconds: flags.timeout ?? flags.time, signalName: flags.signal };
    await forEachNameInOrder(context, names, async (name) => {
      await context.client().containers.restart(name, options);
      printLine(context.stdout, name);
    });
  },
});

export const killCommand = defineCommand({
  usage: CONTAINERS,
  flags: { signal: { kind: 'string', short: 's', summary: 'Signal to send to the container' } },
  arity: { min: 1 },
  async run(context, flags, names) {
    await forEachName(context, names, async (name) => {
      await context.client().containers.kill(name, { signalName: flags.signal });
      printLine(context.stdout, name);
    });
  },
});

export const pauseCommand = defineCommand({
  usage: 'CONTAINER [CONTAINER...]',
  flags: {},
  arity: { min: 1 },
  async run(context, _flags, names) {
    await forEachName(context, names, async (name) => {
      await context.client().containers.pause(name);
      printLine(context.stdout, name);
    });
  },
});

export const unpauseCommand = defineCommand({
  usage: 'CONTAINER [CONTAINER...]',
  flags: {},
  arity: { min: 1 },
  async run(context, _flags, names) {
    await forEachName(context, names, async (name) => {
      await context.client().containers.unpause(name);
      printLine(context.stdout, name);
    });
  },
});

export const rmCommand = defineCommand({
  usage: CONTAINERS,
  flags: {
    force: { kind: 'boolean', short: 'f', summary: 'Force the removal of a running container (uses SIGKILL)' },
    link: { kind: 'boolean', short: 'l', summary: 'Remove the specified link' },
    volumes: { kind: 'boolean', short: 'v', summary: 'Remove anonymous volumes associated with the container' },
  },
  arity: { min: 1 },
  async run(context, flags, names) {
    const options = { force: flags.force ?? false, volumes: flags.volumes ?? false, link: flags.link ?? false };
    await forEachName(context, names, async (given) => {
      const name = given.replace(/^\/+|\/+$/g, '') || given;
      try {
        await context.client().containers.remove(name, options);
      } catch (error) {
        // With --force the wish is fulfilled if there is no such container. Docker says so, and succeeds.
        if (!(options.force && error instanceof ApiError && error.status === 404)) throw error;
        context.stderr.write(`Error response from daemon: ${error.message}\n`);
        return;
      }
      printLine(context.stdout, name);
    });
  },
});

export const renameCommand = defineCommand({
  usage: 'CONTAINER NEW_NAME',
  flags: {},
  arity: { min: 2, max: 2 },
  async run(context, _flags, [container = '', name = '']) {
    await context.client().containers.rename(container, name);
  },
});

export const waitCommand = defineCommand({
  usage: 'CONTAINER [CONTAINER...]',
  flags: {},
  arity: { min: 1 },
  async run(context, _flags, names) {
    await forEachNameInOrder(context, names, async (name) => {
      const answer = await (await context.client().containers.wait(name)).result;
      if (answer.Error?.Message) throw new Error(answer.Error.Message);
      printLine(context.stdout, String(answer.StatusCode));
    });
  },
});
