//! Reading in the chat page, in a real browser: how messages are formatted, grouped, counted, copied and scrolled.

use serde_json::{Value, json};

use crate::support::chat_page::{
    IS_MENU_OPEN, LATEST, MENU_ITEMS, SHOWN, Server, assert_empty_console, send, wait_for_messages,
};
use crate::support::client::Client;
use crate::support::server::Transport;
use crate::support::webdriver::{Browser, Driver, ENTER, ESCAPE, SHIFT, TAB, UP, axe_core};

/// Ctrl+C.
const COPY: &str = "\u{e009}c";

/// Texts, and the markup that they become in the page of Ann.
const FORMATTED: &[(&str, &str)] = &[
    ("plain <b>&amp;</b>", "plain &lt;b&gt;&amp;amp;&lt;/b&gt;"),
    ("**bold**, *bold* and _italic_.", "<strong>bold</strong>, <strong>bold</strong> and <em>italic</em>."),
    (
        "_it *both* it_ (*x*) \"_y_\"",
        "<em>it <strong>both</strong> it</em> (<strong>x</strong>) \"<em>y</em>\"",
    ),
    ("*🎉* 你好**世界**你好", "<strong>🎉</strong> 你好<strong>世界</strong>你好"),
    // No formatting: between letters or digits, next to spaces, without an end, across lines.
    (
        "snake_case_name __init__ 2*3*4 f(*args, **kwargs)",
        "snake_case_name __init__ 2*3*4 f(*args, **kwargs)",
    ),
    ("*.js,*.ts /usr/*/lib/*.so a * b * c", "*.js,*.ts /usr/*/lib/*.so a * b * c"),
    ("*one\ntwo*", "*one\ntwo*"),
    ("*a *b*", "*a <strong>b</strong>"),
    ("*a _b* c_", "<strong>a _b</strong> c_"),
    ("**** ___ ` ``", "**** ___ ` ``"),
    // Nothing is formatted in code.
    ("`*a* _b_ @Ann` *c*", "<code>*a* _b_ @Ann</code> <strong>c</strong>"),
    ("``a`b`` `c", "<code>a`b</code> `c"),
    ("```rust\nlet *x*;\n\n> y\n```\nend", "[let *x*;\n\n&gt; y]end"),
    ("one\n```\ntwo\n```", "one[two]"),
    ("```\nwithout an end *b*", "```\nwithout an end <strong>b</strong>"),
    ("```a```", "<code>a</code>"),
    // Nor in URLs.
    ("https://x.example/a_b_c*d*e", "<a>https://x.example/a_b_c*d*e</a>"),
    ("*https://x.example/a*", "<strong><a>https://x.example/a</a></strong>"),
    ("`https://x.example`", "<code>https://x.example</code>"),
    // Quotes, and lists as they were typed.
    ("> one\n> *two*\nthree", "<blockquote>one\n<strong>two</strong></blockquote>three"),
    (">", "&gt;"),
    (">>> a > b", "&gt;&gt;&gt; a &gt; b"),
    ("- a\n2) *b*\n* c", "<li>- a</li><li>2) <strong>b</strong></li><li>* c</li>"),
    ("-1 * 2", "-1 * 2"),
    // Mentions.
    ("@Ann: ann, ANN! Anna joann", "<mark>@Ann</mark>: <mark>ann</mark>, <mark>ANN</mark>! Anna joann"),
    ("*Ann* ann@ann.example", "<strong><mark>Ann</mark></strong> ann@ann.example"),
];

/// A function that formats a text for Ann, as short markup.
const FORMAT: &str = "(text) => {
    const node = document.createElement('div');
    node.append(...module.format(text, 'Ann'));
    node.querySelectorAll('a').forEach((link) => [...link.attributes].forEach(({ name }) => link.removeAttribute(name)));
    node.querySelectorAll('.code').forEach((code) => code.replaceWith(`[${code.textContent}]`));
    return node.innerHTML.replaceAll('<div class=\"item\">', '<li>').replaceAll('</div>', '</li>');
}";

#[test]
fn messages_are_formatted() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    ann.open(&server.url());
    let texts: Vec<&str> = FORMATTED.iter().map(|(text, _)| *text).collect();
    let markup =
        ann.evaluate(&format!("import('/formatting.js').then((module) => {}.map({FORMAT}))", json!(texts)));
    for ((text, expected), markup) in FORMATTED.iter().zip(markup.as_array().unwrap()) {
        assert_eq!(markup, expected, "{text}");
    }
    // Whatever is written, nothing but the marks of the formats disappears.
    let lost = ann.evaluate(
        "import('/formatting.js').then((module) => {
            const marks = /[*_`>\\s]/g;
            const parts = ['*', '**', '_', '`', '```', '\\n', '> ', '- ', ' ', 'a', 'Ann', '(', '.', 'https://x.example/', '🎉', '\\u0301'];
            let seed = 1;
            const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
            const lost = [];
            for (let i = 0; i < 5000; i += 1) {
                const text = Array.from({ length: 12 }, () => parts[Math.floor(random() * parts.length)]).join('');
                const node = document.createElement('div');
                node.append(...module.format(text, 'Ann'));
                if (node.textContent.replace(marks, '') !== text.replace(/^```a$/gm, '').replace(marks, '')) lost.push(text);
            }
            return lost.filter((text) => !/^```\\w/m.test(text));
        })",
    );
    assert_eq!(lost, json!([]));
    assert_empty_console(&ann);
}

/// In quadratic time this test exceeds the browser's timeout for scripts.
#[test]
fn messages_are_formatted_in_linear_time() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    ann.open(&server.url());
    let parts = [
        "*",
        "* ",
        "*a ",
        "*a* ",
        "a* ",
        "**a *b _c ",
        "_a ",
        "_",
        "*_`",
        "`",
        "`a",
        "`` ` ",
        "```x\n",
        "```\n",
        "> ",
        "> a\n",
        "[",
        "- a\n",
        "1. ",
        "123456789",
        "\n",
        "\t",
        "@",
        "@Ann ",
        "http://[",
        "http://",
        "http://a ",
        "http://a/)",
        "🎉",
        "\u{301}",
    ];
    // Each in a script of its own, as all of them take long on a busy machine.
    let lengths = parts.map(|part| {
        ann.evaluate(&format!(
            "import('/formatting.js').then((module) => {{
                const part = {};
                const text = part.repeat(16000 / part.length);
                const node = document.createElement('div');
                for (let i = 0; i < 40; i += 1) {{
                    node.replaceChildren(...module.format(text, 'Ann'));
                }}
                return node.childNodes.length;
            }})",
            json!(part)
        ))
    });
    assert!(lengths.iter().all(|length| length.as_u64() > Some(0)), "{lengths:?}");
    assert_eq!(lengths[0], 1, "asterisks are one text");
}

#[test]
fn a_few_emoji_alone_are_larger() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    let larger = ["🎉", "👍🏽 👨‍👩‍👧‍👦\n🇩🇪", "❤️", "1️⃣"];
    let usual = ["🎉🎉🎉🎉", "🎉!", "1", "#", "©", "ok 👍"];
    larger.iter().chain(&usual).for_each(|text| bob.public(text));
    ann.wait_for_text(LATEST, usual.last().unwrap());
    let shown = "[...document.querySelectorAll('.emoji .message-text')].map((text) => text.textContent)";
    assert_eq!(ann.evaluate(shown), json!(larger));
    let sizes = "[...document.querySelectorAll('.message-text')] \
                 .map((text) => parseFloat(getComputedStyle(text).fontSize)).join()";
    for (density, size) in [("comfortable", "27.2"), ("compact", "20.8")] {
        change_setting(&ann, "density", &json!(density));
        ann.wait_for(&format!("{sizes} === '{}{}'", format!("{size},").repeat(4), ["15"; 6].join(",")));
    }
    let id = ann.evaluate("document.querySelector('.emoji').data.id");
    bob.command(&format!("/delete {id}"));
    ann.wait_for_text(".message.deleted:not(.emoji)", "Message deleted");
    assert_empty_console(&ann);
}

#[test]
fn a_block_of_code_can_be_copied() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    bob.public("Try this:\n```rust\nfn main() {\n    run();\n}\n```\nIt *works*.");
    ann.wait_for_text(".code", "fn main()");
    record_copies(&ann);
    ann.evaluate(
        "void (window.labels = [], new MutationObserver(() => labels.push(document.querySelector('.code button').ariaLabel)) \
         .observe(document.querySelector('.code button'), { attributeFilter: ['aria-label'] }))",
    );
    ann.click(".code button");
    ann.wait_for("labels.join() === 'Copied,Copy'");
    ann.evaluate("document.querySelector('#message-input').focus()");
    ann.press(&["\u{e009}v"]);
    ann.wait_for("document.querySelector('#message-input').value === 'fn main() {\\n    run();\\n}'");
    assert_eq!(
        ann.evaluate(
            "getComputedStyle(document.querySelector('.code code')).fontFamily.includes('monospace')"
        ),
        true
    );
}

/// On a screen of 1280x800.
#[test]
fn twenty_short_messages_are_visible_at_once() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    set_size(&ann, 1280, 800);
    server.enter(&ann, "Ann");
    let mut clients = ["Bob", "Éva 🦀", "Tom Lee"].map(|name| server.client(name));
    for turn in 0..45 {
        clients[turn % 3].public(&format!("word{turn}"));
        ann.wait_for_text(LATEST, &format!("word{turn}"));
    }
    let visible = "(() => { const box = document.querySelector('#log').getBoundingClientRect();
        return [...document.querySelectorAll('#log .message-text')].filter((text) => {
            const { top, bottom } = text.getBoundingClientRect();
            return top >= box.top && bottom <= box.bottom;
        }).length; })()";
    ann.wait_for(IS_AT_END);
    let count = ann.evaluate(visible).as_u64().unwrap();
    assert!(count >= 20, "{count}");
    ann.evaluate("document.documentElement.dataset.density = 'compact'");
    let compact = ann.evaluate(visible).as_u64().unwrap();
    assert!(compact > count + 4, "{count}, {compact} if compact");
    // From the smallest phone to the largest screen, lines are neither cut off nor too long to read.
    ann.evaluate("delete document.documentElement.dataset.density");
    clients[0].public(&"many words ".repeat(60));
    ann.wait_for_text(LATEST, "many words");
    for (width, height) in [(320, 640), (390, 844), (768, 1024), (1280, 800), (2560, 1440)] {
        set_size(&ann, width, height);
        let text = ann.evaluate("document.querySelector('#log > :last-child > :last-child .message-text').getBoundingClientRect().width");
        assert!((200.0..=700.0).contains(&text.as_f64().unwrap()), "{text} px of {width}");
        assert_eq!(
            ann.evaluate(
                "document.querySelector('#log').scrollWidth <= document.querySelector('#log').clientWidth"
            ),
            true,
            "{width}"
        );
    }
}

/// It was as narrow as one letter, and so high that the log ended with an empty space.
#[test]
fn the_time_of_a_grouped_message_is_one_line() {
    let Some(driver) = Driver::start() else { return };
    for (browser, is_desktop) in [(driver.desktop(), true), (driver.phone(), false)] {
        let server = Server::start(Transport::Ws);
        server.enter(&browser, "Ann");
        change_setting(&browser, "time", &json!("12-hour"));
        let mut bob = server.client("Bob");
        fill(&mut bob);
        browser.wait_for_text(LATEST, "line 99");
        let past_row = "[...document.querySelectorAll('.grouped time')].filter((time) =>
            time.getBoundingClientRect().bottom > time.closest('.message').getBoundingClientRect().bottom)";
        assert_eq!(browser.evaluate(&format!("{past_row}.length")), 0);
        if is_desktop {
            // The pointer shows it, and it does not hide the text.
            let gap = browser.evaluate(
                "(([text, time]) => time.left - text.right)(['.message-text', 'time'].map((part) =>
                    document.querySelector(`.grouped ${part}`).getBoundingClientRect()))",
            );
            assert!(gap.as_f64().unwrap() >= 0.0, "{gap}");
        }
    }
}

#[test]
fn odd_texts_stay_inside_their_row() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.phone();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    bob.public(&format!("z{}", "\u{312}\u{313}\u{489}".repeat(200)));
    bob.public(&"w".repeat(3000));
    bob.public(&format!("```\n{}\n```", "x".repeat(3000)));
    bob.public("\u{202e}reversed שלום");
    bob.public("the end");
    ann.wait_for_text(LATEST, "the end");
    let texts = "[...document.querySelectorAll('#log .message-text')]";
    assert_eq!(
        ann.evaluate(&format!(
            "{texts}.every((text) => getComputedStyle(text).overflow === 'clip' && text.dir === 'auto')"
        )),
        true
    );
    assert_eq!(
        ann.evaluate(&format!("{texts}.every((text) => text.getBoundingClientRect().right <= innerWidth)")),
        true
    );
    let log = "document.querySelector('#log')";
    assert_eq!(ann.evaluate(&format!("{log}.scrollWidth <= {log}.clientWidth")), true);
}

#[test]
fn days_are_separated() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    send(&ann, "now");
    wait_for_messages(&ann, &["now"]);
    let separators = "[...document.querySelectorAll('.divider.day')].map((day) => day.textContent)";
    ann.wait_for(&format!("{separators}.join() === 'Today'"));
    let add_older = |first_id: i64, messages: &str| {
        ann.evaluate(&format!(
            "import('/message-log.js').then((log) => log.addOlder(() => {messages}.forEach(([text, time], index) =>
                log.addMessage({{ id: {first_id} + index, sender: 'Bob', text, time: Number(time), isNew: false }})), false))"
        ));
    };
    add_older(-9, "[['c', new Date(Date.now() - 864e5)], ['d', new Date().setHours(0, 0, 0, 1)]]");
    assert_eq!(ann.evaluate(separators), json!(["Yesterday", "Today"]));
    // The separator of a day that begins in an older page moves up.
    add_older(-19, "[['a', new Date(2024, 10, 25, 9, 5, 7)], ['b', new Date(Date.now() - 864e5)]]");
    assert_eq!(ann.evaluate(separators), json!(["Monday 25 November 2024", "Yesterday", "Today"]));
    assert_eq!(ann.evaluate(SHOWN), json!(["a", "b", "c", "d", "now"]));
    let time = "document.querySelector('#log time')";
    assert_eq!(
        ann.evaluate(&format!("{time}.dateTime === new Date(2024, 10, 25, 9, 5, 7).toISOString()")),
        true
    );
    // The exact moment is shown on hover, and the format of times follows the setting.
    for (setting, shown, exact) in [("24-hour", "09:05", "09:05:07"), ("12-hour", "9:05 am", "09:05:07 am")] {
        change_setting(&ann, "time", &json!(setting));
        assert_eq!(ann.evaluate(&format!("{time}.textContent")), shown);
        assert_eq!(
            ann.evaluate(&format!("{time}.title")),
            format!("Monday 25 November 2024 at {exact}, ID -19")
        );
    }
    // A day without messages has no separator.
    ann.evaluate(
        "import('/message-log.js').then((log) => log.removeRow(document.querySelector('.message')))",
    );
    assert_eq!(ann.evaluate(separators), json!(["Yesterday", "Today"]));
    // What is "Today" now will be "Yesterday" tomorrow.
    ann.evaluate("(() => { const Old = Date; Date = class extends Old { constructor(...time) { super(...(time.length ? time : [Old.now() + 864e5])); } }; })()");
    change_setting(&ann, "time", &json!("24-hour"));
    assert!(ann.evaluate(separators).as_array().unwrap().ends_with(&[json!("Yesterday")]));
    assert_empty_console(&ann);
}

#[test]
fn joins_and_leaves_are_grouped() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let presence = |texts: &[&str]| {
        let rows = "[...document.querySelectorAll('.presence')].filter((row) => row.checkVisibility()).map((row) => row.innerText)";
        ann.wait_for(&format!("JSON.stringify({rows}) === JSON.stringify({})", json!(texts)));
    };
    presence(&["Ann joined."]);
    let bob = server.client("Bob");
    presence(&["Ann and Bob joined."]);
    let mut cid = server.client("Cid");
    presence(&["Ann, Bob and Cid joined."]);
    let guests: Vec<Client> = (1..=39).map(|number| server.client(&format!("Guest {number}"))).collect();
    presence(&["Ann and 41 others joined."]);
    // A crowd isn't announced one by one.
    assert_eq!(ann.evaluate("document.querySelector('.presence').ariaLive"), "off");
    cid.public("Welcome");
    ann.wait_for_text(LATEST, "Welcome");
    // Who comes and goes is named once.
    bob.leave();
    presence(&["Ann and 41 others joined.", "Bob left."]);
    let bob = server.client("Bob");
    presence(&["Ann and 41 others joined.", "Bob left and came back."]);
    server.client("Dan").leave();
    bob.leave();
    presence(&["Ann and 41 others joined.", "Dan joined and left. Bob left."]);
    cid.public("Bye");
    cid.public("and hello");
    ann.wait_for_text(LATEST, "hello");
    // Without them, messages of one sender stand together.
    let headers = "document.querySelectorAll('.message:not(.grouped)').length";
    assert_eq!(ann.evaluate(headers), 2);
    change_setting(&ann, "joins", &json!("hidden"));
    presence(&[]);
    assert_eq!(ann.evaluate(headers), 1);
    drop(guests);
    ann.wait_for("document.querySelector('#member-count').innerText === '2'");
    let flo = server.client("Flo");
    cid.public("still hidden");
    ann.wait_for_text(LATEST, "still hidden");
    presence(&[]);
    flo.leave();
    while cid.next_line() != "system: Flo left." {}
    change_setting(&ann, "joins", &json!("shown"));
    ann.wait_for("document.querySelectorAll('.presence').length >= 3");
    assert_eq!(ann.evaluate("document.querySelector('.presence').innerText"), "Ann and 41 others joined.");
    wait_for_messages(&ann, &["Welcome", "Bye", "and hello", "still hidden"]);
    // Lines that only end like these are something else.
    cid.command("/login secret");
    ann.wait_for_text(LATEST, "Cid is now a moderator.");
    let eve = server.client("Eve");
    cid.command("/kick Eve Bob left.");
    ann.wait_for("[...document.querySelectorAll('.notice:not(.presence)')].some((row) => row.innerText.includes('kicked Eve'))");
    drop(eve);
    assert_empty_console(&ann);
}

#[test]
fn mentions_and_whispers_stand_out_and_are_counted() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.wait_for_text("#log", "Bob joined.");
    fill(&mut bob);
    ann.wait_for_text(LATEST, "line 99");
    assert_eq!(ann.evaluate("document.querySelector('.mentions-me, mark') === null"), true);
    ann.evaluate("import('/message-log.js').then((log) => { log.actions.showUnread = (unread) => { window.unread = { ...unread }; }; })");
    ann.wait_for(IS_AT_END);
    ann.evaluate("document.querySelector('#log').scrollTop = 0");
    ann.wait_for("!document.querySelector('#jump-to-latest').hidden");
    bob.public("one");
    ann.wait_for_text("#jump-to-latest", "1 new message");
    bob.public("two for @ann");
    bob.command("/whisper Ann psst");
    bob.command("/whisper Ann and again");
    ann.wait_for_text("#jump-to-latest", "4 new messages, 1 mention, 2 whispers");
    assert_eq!(ann.evaluate("window.unread"), json!({"count": 4, "mentions": 1, "whispers": 2}));
    ann.wait_for_text(LATEST, "and again");
    assert_eq!(ann.evaluate("document.querySelector('.mentions-me mark').innerText"), "@ann");
    assert_eq!(ann.evaluate("document.querySelectorAll('.mentions-me').length"), 1);
    ann.click("#jump-to-latest");
    ann.wait_for("window.unread.count === 0 && document.querySelector('#jump-to-latest').hidden");
    ann.wait_for_text(".divider.unread", "NEW");
    // What Ann writes herself is no mention.
    send(&ann, "I am Ann");
    wait_for_delivery(&ann);
    assert_eq!(ann.evaluate("document.querySelectorAll('.mentions-me').length"), 1);
}

/// They were once counted until the user scrolled down, as a mention that nobody could find.
#[test]
fn deleted_messages_are_not_counted() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    ann.wait_for_text("#log", "Bob joined.");
    fill(&mut bob);
    ann.wait_for_text(LATEST, "line 99");
    ann.wait_for(IS_AT_END);
    ann.evaluate("document.querySelector('#log').scrollTop = 0");
    ann.wait_for("!document.querySelector('#jump-to-latest').hidden");
    let latest = "document.querySelector('#log > :last-child > :last-child').data.id";
    let mut say = |text: &str| {
        bob.public(text);
        ann.wait_for_text(LATEST, text);
        ann.evaluate(latest).as_u64().unwrap()
    };
    let (first, second) = (say("one for Ann"), say("two for Ann"));
    say("three");
    ann.wait_for_text("#jump-to-latest", "3 new messages, 2 mentions");
    bob.command(&format!("/delete {second}"));
    ann.wait_for("document.querySelector('#jump-to-latest').innerText === '2 new messages, 1 mention'");
    ann.wait_for("document.title === '(2) TinyChat'");
    // One that has been read.
    ann.click("#jump-to-latest");
    ann.wait_for("document.title === 'TinyChat'");
    bob.command(&format!("/delete {first}"));
    ann.wait_for("document.querySelectorAll('.message.deleted').length === 2");
    assert_eq!(ann.evaluate("document.title"), "TinyChat");
    assert_empty_console(&ann);
}

/// Its id may be that of another message by now, which the menu would have deleted.
#[test]
fn a_message_loses_its_id_with_its_epoch() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    send(&ann, "mine");
    wait_for_delivery(&ann);
    let title = "document.querySelector('.message.own time').title";
    assert_eq!(ann.evaluate(&format!("/, ID \\d+$/.test({title})")), true);
    ann.evaluate("import('/message-log.js').then((log) => log.startEpoch('another'))");
    assert_eq!(ann.evaluate(&format!("/ID/.test({title})")), false);
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&[UP, ENTER]);
    ann.wait_for(IS_MENU_OPEN);
    assert_eq!(ann.evaluate(MENU_ITEMS), json!(["Copy text"]));
}

/// The user's own messages were once under "You", which anyone can take as a name.
#[test]
fn nobody_can_pass_for_the_user() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    send(&ann, "mine");
    wait_for_delivery(&ann);
    let mut you = server.client("You");
    you.public("I agree.");
    ann.wait_for_text(LATEST, "I agree.");
    let senders = "[...document.querySelectorAll('#log .message')] \
                   .map((row) => [row.querySelector('.name').innerText, row.matches('.own')])";
    assert_eq!(ann.evaluate(senders), json!([["Ann", true], ["You", false]]));
}

#[test]
fn a_conversation_can_be_read_alone() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    let mut cid = server.client("Cid");
    bob.public("to all");
    bob.command("/whisper Ann first");
    ann.wait_for_text(LATEST, "first");
    cid.command("/whisper Ann from Cid");
    ann.wait_for_text(LATEST, "from Cid");
    send(&ann, "/whisper Bob second");
    ann.wait_for_text(LATEST, "second");
    wait_for_delivery(&ann);
    let shown = "[...document.querySelectorAll('#log .message-text')].filter((text) => text.checkVisibility()).map((text) => text.innerText).join()";
    set_conversation(&ann, &json!("Bob"));
    ann.wait_for_text("#conversation", "Whispers with Bob");
    ann.wait_for(&format!("{shown} === 'first,second'"));
    bob.command("/whisper Ann third");
    bob.public("to all again");
    ann.wait_for(&format!("{shown} === 'first,second,third'"));
    ann.wait_for_text("#show-all", "Show all (1 new)");
    ann.click("#show-all");
    ann.wait_for(&format!("{shown} === 'to all,first,from Cid,second,third,to all again'"));
    assert_eq!(ann.evaluate("document.querySelector('#conversation').hidden"), true);
    assert_eq!(ann.evaluate("document.activeElement.id"), "log");
    // Whoever writes to all sees it.
    set_conversation(&ann, &json!("Cid"));
    ann.wait_for(&format!("{shown} === 'from Cid'"));
    send(&ann, "hello all");
    ann.wait_for_text(LATEST, "hello all");
    ann.wait_for("document.querySelector('#conversation').hidden");
    assert_empty_console(&ann);
}

#[test]
fn messages_have_a_menu_for_mouse_touch_and_keyboard() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        server.enter(&browser, "Ann");
        let mut bob = server.client("Bob");
        bob.public("first");
        bob.public("*second*");
        bob.command("/whisper Ann third");
        browser.wait_for_text(LATEST, "third");
        browser.evaluate(
            "import('/message-log.js').then((log) => {
                log.actions.openMenu = (message) => {
                    window.menu = { ...message, anchor: message.anchor.id, id: typeof message.id };
                };
            })",
        );
        // By the keyboard.
        browser.evaluate("document.querySelector('#log').focus()");
        browser.press(&[UP]);
        browser.wait_for("document.activeElement.ariaLabel?.startsWith('Bob to Ann, ')");
        browser.press(&[UP]);
        browser.wait_for("document.activeElement.ariaLabel?.endsWith(': second')");
        browser.press(&[ENTER]);
        browser.wait_for("window.menu");
        assert_eq!(
            browser.evaluate("window.menu"),
            json!({"id": "number", "sender": "Bob", "text": "*second*", "isOwn": false, "isWhisper": false,
                   "recipient": null, "anchor": "message-menu"})
        );
        browser.press(&[ESCAPE]);
        browser.wait_for("document.activeElement.id === 'message-input'");
        // By the mouse or a touch.
        browser.click("#log .whisper .message-text");
        browser.wait_for("document.querySelector('#message-menu').checkVisibility()");
        browser.click("#message-menu");
        browser.wait_for(
            "window.menu.isWhisper && window.menu.text === 'third' && window.menu.recipient === 'Ann'",
        );
        let (button, row) = (
            "document.querySelector('#message-menu').getBoundingClientRect()",
            "document.querySelector('.whisper').getBoundingClientRect()",
        );
        assert_eq!(
            browser.evaluate(&format!(
                "{button}.top < {row}.bottom && {button}.bottom > {row}.top && {button}.right <= innerWidth"
            )),
            true
        );
        assert_eq!(browser.evaluate(&format!("{button}.width >= 24 && {button}.height >= 24")), true);
    }
}

/// Browsers send pointerover when something else comes to be under a pointer that rests.
#[test]
fn the_message_menu_stays_at_the_focus_when_the_log_scrolls_under_the_pointer() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    fill(&mut bob);
    ann.wait_for_text(LATEST, "line 99");
    ann.devtools("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": 400, "y": 300}));
    ann.wait_for("document.querySelector('.message:hover #message-menu')");
    ann.evaluate("(window.hovered = document.querySelector('.message:hover')) && null");
    ann.evaluate("document.querySelector('#log').focus()");
    ann.press(&[UP, TAB]);
    ann.wait_for("document.activeElement.id === 'message-menu'");
    for line in 100..110 {
        bob.public(&format!("line {line}"));
    }
    ann.wait_for("document.querySelector('.message:hover') !== hovered");
    assert_eq!(
        ann.evaluate("document.activeElement.closest('.message').querySelector('.message-text').textContent"),
        "line 99"
    );
    assert_empty_console(&ann);
}

#[test]
fn copied_lines_have_names_and_times() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    change_setting(&ann, "time", &json!("24-hour"));
    let mut bob = server.client("Bob");
    ann.wait_for_text("#log", "Bob joined.");
    bob.public("*Hello* all");
    bob.public("Here it is:\n```\ncode\n```");
    ann.wait_for_text(LATEST, "code");
    send(&ann, "Thanks");
    wait_for_delivery(&ann);
    record_copies(&ann);
    // From within one message into another.
    ann.evaluate(
        "(() => {
        const texts = document.querySelectorAll('#log .message-text');
        getSelection().setBaseAndExtent(texts[0].firstChild.firstChild, 1, texts[2].firstChild, 4);
        document.querySelector('#log').focus();
    })()",
    );
    ann.press(&[COPY]);
    ann.wait_for("window.copied");
    let copied = ann.evaluate("copied.replace(/\\d\\d:\\d\\d/g, '14:03')");
    assert_eq!(copied, "Bob, 14:03: ello all\nBob, 14:03: Here it is:\n```\ncode\n```\nAnn, 14:03: Than");
    // Within one message, just the selection.
    ann.evaluate("(() => { window.copied = null; getSelection().setBaseAndExtent(document.querySelector('#log strong').firstChild, 0, document.querySelector('#log strong').nextSibling, 2); })()");
    ann.press(&[COPY]);
    ann.wait_for("window.copied !== null");
    assert_eq!(ann.evaluate("copied"), "");
    assert_eq!(ann.evaluate("String(getSelection())"), "Hello a");
    assert_empty_console(&ann);
}

/// The box for messages grows with its text.
#[test]
fn the_log_stays_at_its_end_while_a_long_message_is_written() {
    let Some(driver) = Driver::start() else { return };
    for browser in [driver.desktop(), driver.phone()] {
        let server = Server::start(Transport::Ws);
        server.enter(&browser, "Ann");
        let mut bob = server.client("Bob");
        fill(&mut bob);
        browser.wait_for_text(LATEST, "line 99");
        browser.evaluate("document.querySelector('#message-input').focus()");
        for line in 0..8 {
            browser.press(&["a", &format!("{SHIFT}{ENTER}"), "b"]);
            bob.public(&format!("meanwhile {line}"));
            browser.wait_for_text(LATEST, &format!("meanwhile {line}"));
            browser.wait_for(&format!("{IS_AT_END} && document.querySelector('#jump-to-latest').hidden"));
        }
        assert_eq!(browser.evaluate("document.querySelector('#message-input').clientHeight > 100"), true);
        // A row can grow as well.
        browser.evaluate("document.querySelector('#log .message:nth-last-child(3)').style.height = '500px'");
        browser.wait_for(IS_AT_END);
        // Only scrolling detaches it.
        browser.evaluate("document.querySelector('#log').scrollTop -= 300");
        browser.wait_for("!document.querySelector('#jump-to-latest').hidden");
        browser.press(&["b"]);
        assert_eq!(browser.evaluate(&format!("!{IS_AT_END}")), true);
    }
}

/// Adding a message to a long log must not touch the rows above it. The browser skips those that are not visible.
#[test]
fn a_new_message_changes_one_chunk_of_a_long_log() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    for line in 0..10_300 {
        bob.public(&format!("line {line}"));
    }
    ann.wait_for_text(LATEST, "line 10299");
    // Chunks above the last one change once more when the browser has laid them out.
    ann.wait_for("!document.querySelector('#log > :not(.settled, :last-child)')");
    for scroll_top in [1e9, 100_000.0] {
        ann.evaluate(&format!("document.querySelector('#log').scrollTop = {scroll_top}"));
        ann.wait_for(&format!("document.querySelector('#jump-to-latest').hidden === {}", scroll_top > 1e6));
        ann.evaluate("(() => {
            window.changed = new Set();
            window.observer = new MutationObserver((records) => records.forEach(({ target }) => changed.add(target)));
            observer.observe(document.querySelector('#log'), { subtree: true, childList: true, attributes: true, characterData: true });
        })()");
        bob.public(&format!("one more at {scroll_top}"));
        ann.wait_for_text(LATEST, &format!("one more at {scroll_top}"));
        let changes = ann.evaluate("[...changed].filter((node) => node.id !== 'log' && !document.querySelector('#log').lastElementChild.contains(node)).length");
        ann.evaluate("observer.disconnect()");
        assert_eq!(changes, 0);
    }
    let chunks = ann.evaluate("[...document.querySelector('#log').children].map((chunk) => [chunk.childElementCount, getComputedStyle(chunk).contentVisibility])");
    let chunks = chunks.as_array().unwrap();
    assert!(chunks.len() > 90 && chunks.iter().all(|chunk| chunk[0].as_u64().unwrap() <= 101), "{chunks:?}");
    assert!(chunks[..chunks.len() - 1].iter().all(|chunk| chunk[1] == "auto"), "{chunks:?}");
    // All of it can be scrolled through: nothing moves while the heights of chunks become known.
    ann.evaluate("document.querySelector('#log').scrollTop = 0");
    ann.wait_for("document.querySelector('#log').scrollTop === 0");
    assert_empty_console(&ann);
}

#[test]
fn the_log_is_accessible_in_a_full_room() {
    let (Some(driver), Some(axe)) = (Driver::start(), axe_core()) else { return };
    let server = Server::start(Transport::Ws);
    let browsers = [(driver.desktop(), "Ann", "desktop"), (driver.phone(), "Mia", "phone")];
    for (browser, name, _) in &browsers {
        server.enter(browser, name);
    }
    let guests: Vec<Client> = (1..=60).map(|number| server.client(&format!("Guest {number}"))).collect();
    let mut bob = server.client("Bob");
    for (browser, name, size) in &browsers {
        browser.wait_for_text(".presence", " others joined.");
        bob.public(&format!(
            "@{name}, see `this`:\n```\ncode\n```\n> quoted\n- one\n- *two* and _three_\nhttps://x.example"
        ));
        bob.command(&format!("/whisper {name} psst"));
        browser.wait_for_text(LATEST, "psst");
        send(browser, "Thanks, *Bob*");
        browser.wait_for_text(".own", "Thanks");
        set_conversation(browser, &json!("Bob"));
        browser.assert_accessible(&axe, "a conversation");
        set_conversation(browser, &Value::Null);
        browser.evaluate("document.querySelector('#log').focus()");
        browser.press(&[UP, UP]);
        browser.wait_for("document.activeElement.matches('.message')");
        for is_dark in [false, true] {
            browser.set_dark(is_dark);
            browser.assert_accessible(&axe, &format!("log ({size}, dark: {is_dark})"));
        }
        assert_eq!(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
        assert_empty_console(browser);
    }
    drop(guests);
}

/// Whether the log shows its end.
const IS_AT_END: &str = "(() => { const log = document.querySelector('#log'); \
    return log.scrollHeight - log.scrollTop - log.clientHeight < 2; })()";

/// Says enough for the log to be scrolled.
fn fill(client: &mut Client) {
    for line in 0..100 {
        client.public(&format!("line {line}"));
    }
}

fn set_size(browser: &Browser, width: u32, height: u32) {
    let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", metrics);
    browser.wait_for(&format!("innerWidth === {width}"));
}

fn change_setting(browser: &Browser, name: &str, value: &Value) {
    browser.evaluate(&format!(
        "import('/settings.js').then((module) => module.changeSetting('{name}', {value}))"
    ));
}

fn set_conversation(browser: &Browser, name: &Value) {
    browser.evaluate(&format!("import('/message-log.js').then((log) => log.setConversation({name}))"));
}

/// Keeps what the page puts on the clipboard as `copied`; "" if it leaves that to the browser.
fn record_copies(browser: &Browser) {
    browser.evaluate("void addEventListener('copy', (event) => { window.copied = event.clipboardData.getData('text/plain'); })");
}

fn wait_for_delivery(browser: &Browser) {
    browser.wait_for("!document.querySelector('.pending, .delivery-state')");
}

/// The layout of thousands of elements would block the page.
#[test]
fn a_message_of_thousands_of_elements_is_not_formatted() {
    let Some(driver) = Driver::start() else { return };
    let server = Server::start(Transport::Ws);
    let ann = driver.desktop();
    server.enter(&ann, "Ann");
    let mut bob = server.client("Bob");
    let texts = ["`a` ".repeat(500), "`a` ".repeat(3_000), "> `a`\n".repeat(2_000), "@Ann ".repeat(3_000)];
    for text in &texts {
        bob.public(text);
    }
    ann.wait_for("document.querySelectorAll('#log .message').length === 4");
    let counts = "[...document.querySelectorAll('#log .message-text')].map((text) => text.childElementCount)";
    assert_eq!(ann.evaluate(counts), json!([500, 0, 0, 0]));
    assert_eq!(ann.evaluate(&format!("{SHOWN}[2].trim()")), texts[2].trim());
    // A mention in one still counts.
    let mentions =
        "[...document.querySelectorAll('#log .message')].map((row) => row.matches('.mentions-me'))";
    assert_eq!(ann.evaluate(mentions), json!([false, false, false, true]));
    assert_empty_console(&ann);
}
