package webhook

// Look is what a server does once a minute.
var Look = (*Service).look
