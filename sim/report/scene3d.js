// Unpacks the client, and makes a frame of it and of the episode whose button was pressed.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
for (const button of document.querySelectorAll("[data-scene]")) button.addEventListener("click", async () => {
  button.disabled = true;
  const scene = document.getElementById(button.dataset.scene).textContent;
  const client = await unpacked("viser");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const frame = document.createElement("iframe");
  frame.title = button.dataset.title;
  frame.srcdoc = client.split('__VISER_EMBED_DATA__="@"').join('__VISER_EMBED_DATA__="' + scene + '"')
    .replace("darkMode:false", "darkMode:" + dark);
  button.parentElement.replaceChildren(frame);
});
