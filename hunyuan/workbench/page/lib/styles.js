/** Stylesheets that are loaded when they are needed. */

/** Add a stylesheet of this server once; resolves when it is there, or known to be missing. */
export function stylesheet(path) {
  const old = document.querySelector(`link[href="${path}"]`);
  if (old) return old.loaded ?? Promise.resolve();
  const link = document.createElement('link');
  link.rel = 'stylesheet';
  link.href = path;
  link.loaded = new Promise((resolve) => {
    link.addEventListener('load', resolve);
    link.addEventListener('error', resolve);
  });
  document.head.append(link);
  return link.loaded;
}
