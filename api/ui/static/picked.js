// What somebody chose or dropped: files with their paths below what he chose, and what cannot be sent.

// More at once is for the command line.
export const MOST_FILES = 10000;

/** What a field for files has. Browsers do not tell of empty folders there. */
export function chosen(input) {
  const files = [...input.files].map((file) => ({ file, relative: file.webkitRelativePath || file.name }));
  return { files: files.slice(0, MOST_FILES), skipped: [], more: files.length > MOST_FILES };
}

/** What was dropped, whole folders with all that is in them. To be called while it is being dropped. */
export async function dropped(transfer) {
  const found = { files: [], skipped: [], more: false };
  // What is handed over is there for this moment alone.
  const entries = [...transfer.items].filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile()).filter(Boolean);
  for (const entry of entries) {
    if (entry instanceof File) found.files.push({ file: entry, relative: entry.name });
    else await walk(entry, "", found);
  }
  return found;
}

async function walk(entry, below, found) {
  if (found.files.length >= MOST_FILES) {
    found.more = true;
    return;
  }
  const path = below + entry.name;
  try {
    if (entry.isFile) {
      found.files.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), relative: path });
      return;
    }
    const children = await all(entry.createReader());
    if (!children.length) found.skipped.push({ path: `${path}/`, why: "empty" });
    for (const child of children) await walk(child, `${path}/`, found);
  } catch {
    found.skipped.push({ path, why: "unreadable" });
  }
}

/** A folder is told a hundred entries at a time. */
async function all(reader) {
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return found;
    found.push(...some);
  }
}
