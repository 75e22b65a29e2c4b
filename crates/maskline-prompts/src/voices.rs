//! Voices by name: what an engine has, and which of it comes nearest to a name that was meant for another.
//!
//! Pure.

/// A voice of an engine, as `GET …/speech-profiles` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeechProfile {
    /// Locale and name: `en-US-EspeakFemale`. What callflows ask for.
    pub code: String,
    /// Language and region (BCP 47); the language alone where it has no region to name.
    pub locale: String,
    /// The language in words.
    pub description: String,
    /// As it sounds.
    pub gender: Gender,
}

/// How a voice sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gender {
    /// Like a woman's.
    Female,
    /// Like a man's.
    Male,
}

impl SpeechProfile {
    /// The voice of this name; else, of those whose language it is, the one whose region and then whose
    /// gender it is, the earlier one first. Names are `locale-Name`, in whatever case. Of a name that is
    /// not known the gender is taken for female, which most services begin with. `None`: nobody speaks
    /// the language.
    #[must_use]
    pub fn nearest<'a>(profiles: &'a [Self], name: &str) -> Option<&'a Self> {
        if let Some(same) = profiles
            .iter()
            .find(|it| it.code.eq_ignore_ascii_case(name))
        {
            return Some(same);
        }
        let (language, rest) = name.split_once('-').unwrap_or((name, ""));
        let (region, voice) = rest.split_once('-').unwrap_or((rest, ""));
        let language = language_of(language, region);
        let gender = gender_of(voice);
        let unlike = |it: &&Self| {
            let (of_voice, region_of_voice) = it.locale.split_once('-').unwrap_or((&it.locale, ""));
            let is_language = of_voice.eq_ignore_ascii_case(&language);
            let other_region = !region_of_voice.eq_ignore_ascii_case(region);
            is_language.then_some((other_region, it.gender != gender))
        };
        let known = profiles.iter().filter_map(|it| Some((unlike(&it)?, it)));
        known.min_by_key(|(unlike, _)| *unlike).map(|(_, it)| it)
    }
}

/// Languages that are called by more than one name.
fn language_of(language: &str, region: &str) -> String {
    let language = language.to_ascii_lowercase();
    match (language.as_str(), region.to_ascii_uppercase().as_str()) {
        ("zh", "HK" | "MO") => "yue".to_owned(),
        ("cmn", _) => "zh".to_owned(),
        ("no", _) => "nb".to_owned(),
        ("in", _) => "id".to_owned(),
        ("iw", _) => "he".to_owned(),
        _ => language,
    }
}

/// Names of men among the usual names of voices, without what says how they are made.
const MEN: [&str; 96] = [
    "aarav",
    "abdullah",
    "adam",
    "ahmet",
    "alain",
    "alessio",
    "alvaro",
    "andika",
    "andrew",
    "antoine",
    "antonin",
    "ardi",
    "arnaud",
    "asaf",
    "ashwin",
    "avri",
    "basel",
    "benjamin",
    "bennet",
    "bernd",
    "boris",
    "borislav",
    "brandon",
    "brian",
    "calimero",
    "carlos",
    "christoph",
    "christopher",
    "claude",
    "conrad",
    "cosimo",
    "daniel",
    "danny",
    "dariush",
    "dmitry",
    "donato",
    "duarte",
    "emil",
    "enric",
    "eric",
    "fabio",
    "filip",
    "filiz",
    "finn",
    "george",
    "guillaume",
    "guy",
    "hamed",
    "harri",
    "heami",
    "henri",
    "hemant",
    "humberto",
    "ichiro",
    "injoon",
    "ivan",
    "jacob",
    "jakub",
    "james",
    "jan",
    "jean",
    "jeppe",
    "jorge",
    "julio",
    "kangkang",
    "karsten",
    "keita",
    "liam",
    "luca",
    "lukas",
    "maarten",
    "madhur",
    "marek",
    "matej",
    "matteo",
    "mattias",
    "mihai",
    "mohan",
    "naayf",
    "namminh",
    "niwat",
    "osman",
    "ostap",
    "pablo",
    "pattara",
    "paul",
    "pavel",
    "prabhat",
    "raul",
    "ryan",
    "sean",
    "shakir",
    "stefan",
    "stefanos",
    "szabolcs",
    "tamas",
];

/// More of them.
const MORE_MEN: [&str; 18] = [
    "tarik",
    "thomas",
    "tomas",
    "tony",
    "valluvar",
    "viktor",
    "wayne",
    "wanlung",
    "william",
    "yunjhe",
    "yunxi",
    "yunyang",
    "zhiwei",
    "male",
    "espeakmale",
    "rizwan",
    "davis",
    "jason",
];

fn gender_of(voice: &str) -> Gender {
    let name = voice.to_ascii_lowercase();
    let name = name.split('-').next().unwrap_or_default();
    let name = ["multilingualneural", "neural", "apollo", "rus"]
        .iter()
        .find_map(|kind| name.strip_suffix(kind))
        .unwrap_or(name);
    if MEN.contains(&name) || MORE_MEN.contains(&name) {
        Gender::Male
    } else {
        Gender::Female
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(codes: &[&str]) -> Vec<SpeechProfile> {
        let profile = |code: &&str| {
            let (locale, name) = code.rsplit_once('-').unwrap_or((code, ""));
            SpeechProfile {
                code: (*code).to_owned(),
                locale: locale.to_owned(),
                description: String::new(),
                gender: if name == "He" {
                    Gender::Male
                } else {
                    Gender::Female
                },
            }
        };
        codes.iter().map(profile).collect()
    }

    #[test]
    fn a_voice_of_another_engine_is_the_one_that_comes_nearest() {
        let all = profiles(&[
            "en-GB-She",
            "en-GB-He",
            "en-US-He",
            "en-US-She",
            "zh-CN-She",
            "yue-HK-He",
            "id-ID-She",
            "id-ID-He",
            "nb-NO-She",
            "eo-She",
        ]);
        for (asked, expected) in [
            ("en-US-He", Some("en-US-He")),
            ("EN-us-SHE", Some("en-US-She")),
            ("en-US-BenjaminRUS", Some("en-US-He")),
            ("en-US-GuyNeural", Some("en-US-He")),
            ("en-US-ZiraRUS", Some("en-US-She")),
            ("en-US-Somebody", Some("en-US-She")),
            ("en-SG-WayneNeural", Some("en-GB-He")),
            ("en-SG-LunaNeural", Some("en-GB-She")),
            ("id-ID-Andika", Some("id-ID-He")),
            ("id-ID-GadisNeural", Some("id-ID-She")),
            ("zh-CN-YunxiNeural", Some("zh-CN-She")),
            ("zh-HK-WanLungNeural", Some("yue-HK-He")),
            ("zh-TW-HsiaoYuNeural", Some("zh-CN-She")),
            ("no-NO-HuldaRUS", Some("nb-NO-She")),
            ("en-US", Some("en-US-She")),
            ("en", Some("en-GB-She")),
            ("eo-X-Y", Some("eo-She")),
            ("sw-KE-RafikiNeural", None),
            ("", None),
            ("-", None),
            ("--------", None),
        ] {
            let nearest = SpeechProfile::nearest(&all, asked).map(|it| it.code.as_str());
            assert_eq!(nearest, expected, "{asked}");
        }
    }
}
