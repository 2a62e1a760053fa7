import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';

/**
 * Makes `folder` hold these files and no others, or with `check` only says which are not fresh and sets the exit code.
 * `files`: names below the folder with their texts. `command`: what a reader runs to make them fresh.
 */
export async function writeOrCheck(
  folder: string,
  files: ReadonlyMap<string, string>,
  check: boolean,
  command: string,
): Promise<void> {
  const present = await readdir(folder, { recursive: true, withFileTypes: true });
  const names = present
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => relative(folder, join(parentPath, name)));
  const stale = names.filter((name) => !files.has(name));
  for (const [name, text] of files) {
    const path = join(folder, name);
    const same = names.includes(name) && (await readFile(path, 'utf8')) === text;
    if (same) continue;
    stale.push(name);
    if (check) continue;
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, text);
  }
  if (!check) {
    for (const name of stale) if (!files.has(name)) await rm(join(folder, name));
    console.log(`${relative(process.cwd(), folder)}: ${files.size} files, ${stale.length} changed`);
  } else if (stale.length > 0) {
    console.error(
      `not fresh: ${stale.map((name) => join(relative(process.cwd(), folder), name)).join(', ')}. Run \`${command}\` and commit the result.`,
    );
    process.exitCode = 1;
  }
}
