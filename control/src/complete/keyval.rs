//! The value of an option such as `-netdev`: `TYPE,id=ID,MEMBER=VALUE…`.

use super::{Candidate, Names, Place, SchemaIndex};

/// What `typed`, the value of an option that stands for the arguments of `command`, can become. Its first item is the
/// member `implied`, whose key may be left out.
pub(crate) fn option_value(
    schema: &SchemaIndex,
    command: &str,
    implied: &str,
    names: &Names,
    typed: &str,
) -> Vec<Candidate> {
    // A comma within a value is written twice; whoever has one is not helped further.
    let (head, part) = typed.rsplit_once(',').map_or(("", typed), |(head, part)| (head, part));
    let given: Vec<(&str, &str)> =
        head.split(',').enumerate().filter_map(|(index, item)| pair(index, item, implied)).collect();
    let value_of = |key: &str| {
        let found = given.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| (*value).to_owned())
    };
    let head = if head.is_empty() { String::new() } else { format!("{head},") };
    let at = |head| Place { names, truth: ["on", "off"], head };
    if let Some((key, value)) = part.split_once('=') {
        let member = schema.member(command, key, &value_of);
        let head = format!("{head}{key}=");
        return member.map(|member| at(&head).values(&member, value)).unwrap_or_default();
    }
    if head.is_empty() {
        let member = schema.member(command, implied, &value_of);
        let found = member.map(|member| at("").values(&member, part)).unwrap_or_default();
        // More must follow: at least an id.
        return found.into_iter().map(|candidate| Candidate::new(candidate.text + ",", "")).collect();
    }
    let members = schema.members(command, &value_of).into_iter();
    let open = members.filter(|member| member.key.starts_with(part) && value_of(&member.key).is_none());
    open.map(|member| {
        let help = if member.is_required { "required" } else { "" };
        Candidate::new(format!("{head}{}=", member.key), help)
    })
    .collect()
}

/// An item as a key and a value.
fn pair<'t>(index: usize, item: &'t str, implied: &'t str) -> Option<(&'t str, &'t str)> {
    match item.split_once('=') {
        None if index == 0 => Some((implied, item)),
        pair => pair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complete::schema::tests::small;

    fn candidates(typed: &str) -> Vec<String> {
        let names = Names { netdevs: vec!["n0".into(), "n1".into()], ..Names::default() };
        let found = option_value(&small(), "netdev_add", "type", &names, typed);
        found.into_iter().map(|candidate| candidate.text).collect()
    }

    #[test]
    fn first_the_type_then_members_and_their_values() {
        assert_eq!(candidates(""), ["stream,", "hubport,"]);
        assert_eq!(candidates("hu"), ["hubport,"]);
        assert_eq!(candidates("hubport,"), ["hubport,id=", "hubport,hubid=", "hubport,netdev="]);
        assert_eq!(candidates("hubport,id=h0,n"), ["hubport,id=h0,netdev="]);
        assert_eq!(
            candidates("hubport,id=h0,netdev="),
            ["hubport,id=h0,netdev=n0", "hubport,id=h0,netdev=n1"]
        );
        assert_eq!(candidates("stream,addr.type=u"), ["stream,addr.type=unix"]);
        assert_eq!(
            candidates("stream,id=s,addr.type=unix,addr.p"),
            ["stream,id=s,addr.type=unix,addr.path="]
        );
        assert_eq!(candidates("stream,server="), ["stream,server=on", "stream,server=off"]);
        assert_eq!(candidates("stream,server=of"), ["stream,server=off"]);
        assert!(candidates("stream,bogus=").is_empty() && candidates("bogus,x").is_empty());
    }
}
