// Shows openapi.json with Swagger UI. Calls that are tried go to where this page came from, also
// behind a proxy that serves it under a path of its own; keys stay in the page's memory.

/* global SwaggerUIBundle */

import { fill, models, name } from "./examples.js";

const place = document.getElementById("reference");
const dark = matchMedia("(prefers-color-scheme: dark)");
const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

// A field of a form that was left empty is not sent: there is nothing that it could mean.
const sendsNothingEmpty = () => ({ components: { ParameterIncludeEmpty: () => null } });

function light() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

async function show() {
  const answer = await fetch("openapi.json");
  if (!answer.ok) {
    throw new Error(`openapi.json was answered with status ${answer.status}`);
  }
  const spec = { ...(await answer.json()), servers: [{ url: base }] };
  name(spec, await models());
  fill(spec);
  place.replaceChildren();
  SwaggerUIBundle({
    spec,
    domNode: place,
    deepLinking: true,
    defaultModelExpandDepth: 2,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    docExpansion: "list",
    persistAuthorization: false,
    plugins: [sendsNothingEmpty],
    tryItOutEnabled: true,
    validatorUrl: null,
  });
}

light();
dark.addEventListener("change", light);
show().catch((error) => {
  const told = document.createElement("p");
  told.setAttribute("role", "alert");
  told.textContent = `The reference cannot be shown: ${error.message}`;
  place.replaceChildren(told);
});
