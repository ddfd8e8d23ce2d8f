"""The HTTP interface over a service, free of Ray: endpoints, their documents, the stream and the page."""
