// A second reader of calendars: ical.js, which knows no zones but those that an object brings along. Reads one JSON
// command a line, answers each by one line {"ok"} or {"error"}.
import { createInterface } from "node:readline";
import ICAL from "ical.js";

const instant = (time) => {
    if (time.zone === ICAL.Timezone.localTimezone) throw new Error(`no zone: ${time}`);
    return new Date(time.toUnixTime() * 1000).toISOString().replace(".000Z", "Z");
};

const open = (text) => new ICAL.Component(ICAL.parse(text));

const readEvent = (component) => {
    const value = (name) => component.getFirstPropertyValue(name);
    const event = new ICAL.Event(component, { exceptions: [] });
    const start = event.startDate;
    return {
        uid: event.uid,
        sequence: event.sequence,
        stamp: instant(value("dtstamp")),
        start: instant(start),
        end: instant(event.endDate),
        status: value("status"),
        texts: ["summary", "description", "location", "url", "class", "transp"].map(value),
        organizer: value("organizer"),
        attendees: component
            .getAllProperties("attendee")
            .map((one) => [one.getFirstValue(), one.getParameter("partstat"), one.getParameter("rsvp")]),
        recurrence_id: event.isRecurrenceException() ? instant(event.recurrenceId) : null,
        exdates: component.getAllProperties("exdate").flatMap((one) => one.getValues().map(instant)).sort(),
        rule: value("rrule") ? value("rrule").toString().split(";").sort() : [],
        alarms: component.getAllSubcomponents("valarm").map((alarm) => {
            const at = start.convertToZone(ICAL.Timezone.utcTimezone);
            at.addDuration(alarm.getFirstPropertyValue("trigger"));
            return [alarm.getFirstPropertyValue("action"), instant(at)];
        }),
    };
};

const commands = {
    // What an object says.
    read({ text }) {
        const calendar = open(text);
        return {
            method: calendar.getFirstPropertyValue("method"),
            entries: calendar.getAllSubcomponents("vevent").map(readEvent),
            zones: calendar.getAllSubcomponents("vtimezone").map((one) => one.getFirstPropertyValue("tzid")),
        };
    },

    // Everything that a calendar which holds this shows, from the first to the last.
    expand({ text }) {
        const components = open(text).getAllSubcomponents("vevent");
        const exceptions = components.filter((one) => one.hasProperty("recurrence-id"));
        const masters = components.filter((one) => !one.hasProperty("recurrence-id"));
        const shown = [];
        const show = (event, start, end) => {
            const status = event.component.getFirstPropertyValue("status");
            shown.push([event.uid, instant(start), instant(end), status]);
        };
        const uid = (one) => one.getFirstPropertyValue("uid");
        for (const master of masters) {
            const own = exceptions.filter((one) => uid(one) === uid(master));
            const event = new ICAL.Event(master, { exceptions: own });
            if (!event.isRecurring()) {
                show(event, event.startDate, event.endDate);
                continue;
            }
            const iterator = event.iterator();
            for (let next = iterator.next(); next; next = iterator.next()) {
                const { item, startDate, endDate } = event.getOccurrenceDetails(next);
                show(item, startDate, endDate);
            }
        }
        for (const alone of exceptions) {
            if (masters.some((one) => uid(one) === uid(alone))) continue;
            const event = new ICAL.Event(alone, { exceptions: [] });
            show(event, event.startDate, event.endDate);
        }
        return shown.sort();
    },
};

for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...values } = JSON.parse(line);
    try {
        process.stdout.write(`${JSON.stringify({ ok: commands[command](values) })}\n`);
    } catch (error) {
        process.stdout.write(`${JSON.stringify({ error: `${error.stack}` })}\n`);
    }
}
