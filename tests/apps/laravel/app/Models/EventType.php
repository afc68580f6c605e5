<?php

namespace App\Models;

class EventType extends CompanyRecord
{
}
